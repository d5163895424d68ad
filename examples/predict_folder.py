"""Finds the people in every image of a folder: overlays, and one COCO results file.

    python examples/predict_folder.py photos --checkpoint higherhrnet_w32_crowdpose --output found

A result's image_id is the place of its image in the list of names, from 0.
"""

import argparse
import json
from pathlib import Path

import dhn
from dhn.base.errors import DhnError
from dhn.media.formats import IMAGE_SUFFIXES
from dhn.media.images import write_image

parser = argparse.ArgumentParser(description="Find the people in every image of a folder.")
parser.add_argument("folder", type=Path)
parser.add_argument("--checkpoint", help="file, name or address; by default dhn's own")
parser.add_argument("--device", default="auto")
parser.add_argument("--output", type=Path, default=Path("found"), help="folder to write to")
parser.add_argument("--score", type=float, default=0.1, help="leave out people who score less")
arguments = parser.parse_args()

predictor = dhn.load(arguments.checkpoint, device=arguments.device, flip=True)
results = []
images = [p for p in sorted(arguments.folder.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
for number, path in enumerate(images):
    try:
        people = predictor(path)
    except DhnError as error:  # one line that names the file
        print(f"left out: {error}")
        continue
    people = people[people.scores >= arguments.score]
    results += people.to_coco(number)
    write_image(arguments.output / f"{path.stem}.jpg", people.plot())
    print(f"{path.name}: found {len(people)}")

arguments.output.mkdir(parents=True, exist_ok=True)
(arguments.output / "results.json").write_text(json.dumps(results))
