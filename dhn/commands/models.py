"""`dhn models`."""

import json
from typing import Any

import click

from dhn.commands import options


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@options.common
def models(as_json: bool, quiet: bool) -> None:
    """List the weights that --checkpoint and train.init take by name.

    `people` is in the package. The others are downloaded when they are first used, to DHN_HOME or
    the platform's cache folder.
    """
    from dhn.base.cache import cache_folder
    from dhn.weights.choice import BUNDLED, BUNDLED_NAME
    from dhn.weights.download import cached
    from dhn.weights.zoo import PUBLISHED

    own = {"name": BUNDLED_NAME, "data": "photos", "input_size": None, "ap": None}
    rows: list[dict[str, Any]] = [own | {"size": BUNDLED.stat().st_size, "cached": str(BUNDLED)}]
    for name, known in PUBLISHED.items():
        path = cached(known.address)
        size = path.stat().st_size if path.is_file() else None
        row = known._asdict() | {"size": size, "cached": str(path) if size else None}
        rows.append({"name": name} | row)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    line = "{:<27}{:<11}{:>6}{:>8}{:>11}  {}".format
    if not quiet:
        click.echo(line("name", "data", "input", "AP", "size", "cached"))
    for row in rows:
        size = row["size"]
        click.echo(
            line(
                row["name"],
                row["data"],
                row["input_size"] or "",
                f"{row['ap']:.1f}" if row["ap"] else "",
                f"{size / 1e6:.0f} MB" if size else f"~{4 * row['parameters']:.0f} MB",
                "yes" if size else "no",
            )
        )
    if not quiet:
        click.echo(
            "\nThe AP is the published one, with flip test, on CrowdPose test or COCO val2017. "
            f"ImageNet weights\nare backbones to train from. docs/model-card.md is about people.\n"
            f"Cache: {cache_folder()}"
        )
