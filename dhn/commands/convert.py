"""`dhn convert`."""

from pathlib import Path

import click

from dhn.commands import options
from dhn.commands.console import count

# As in dhn.prediction.convert, which is slow to import.
_FORMATS = ("json", "jsonl", "csv", "coco", "openpose", "mot", "yolo", "slp", "nwb", "dlc")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--from", "source_format", type=click.Choice(_FORMATS), help="What SOURCE is.")
@click.option("--to", "target_format", type=click.Choice(_FORMATS), help="What OUTPUT becomes.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Folder of the images and videos, for their sizes; YOLO labels need it.",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The annotations that COCO results belong to, for joints, file names and sizes.",
)
@click.option(
    "--joints",
    type=click.Choice(["coco", "crowdpose"]),
    help="Write these joints, chosen by name; what SOURCE has not is missing.",
)
@click.option(
    "--ids",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FIXES.csv",
    help="Correct ids by this table: columns action (swap, merge or split), id, other, first, last "
    "(frames), source.",
)
@click.option(
    "--person", type=options.COUNT, metavar="ID", help="Write the person with this id alone."
)
@options.common
def convert(
    source: Path,
    output: Path,
    source_format: str | None,
    target_format: str | None,
    images: Path | None,
    annotations: Path | None,
    joints: str | None,
    ids: Path | None,
    person: int | None,
    quiet: bool,
) -> None:
    """Turn a file of predictions into another format.

    \b
    dhn convert people.json people.csv
    dhn convert people.jsonl corrected.jsonl --ids fixes.csv
    dhn convert people.json labels --to yolo
    dhn convert openpose_folder results.json --to coco --joints coco

    Suffixes name the formats of dhn (.json, .jsonl, .csv), MOTChallenge's text (.txt), SLEAP (.slp)
    and NWB (.nwb), --to all others. COCO results, OpenPose's folders, YOLO-pose labels and
    DeepLabCut's files are recognised. SLEAP, NWB and DeepLabCut need the package sleap-io;
    DeepLabCut is only read, MOT text only written.
    """
    from dhn.data.joints import COCO, CROWDPOSE
    from dhn.prediction.convert import convert as convert_predictions
    from dhn.tracking import read_corrections

    converted = convert_predictions(
        source,
        output,
        source_format=source_format,
        target_format=target_format,
        images=images,
        annotations=annotations,
        joints={"coco": COCO, "crowdpose": CROWDPOSE, None: None}[joints],
        ids=None if ids is None else read_corrections(ids),
        person=person,
    )
    if not quiet:
        images_text = count(converted.images, "image")
        people = count(converted.people, "person", "people")
        click.echo(f"{images_text}, {people} -> {output}", err=str(output) == "-")
