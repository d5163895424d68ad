"""Predictions as JSON, JSON lines and CSV; docs/outputs.md describes them.

`predictions.schema.json` beside this file is the JSON Schema of both JSON forms.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

from dhn.inference.people import People, joint_columns
from dhn.prediction.sinks import Frame, TextFile

SCHEMA = Path(__file__).with_name("predictions.schema.json")
_COLUMNS = (
    *("source", "frame", "time", "person", "id", "score"),
    *("box_left", "box_top", "box_width", "box_height"),
)


def _entry(frame: Frame, people: People) -> dict[str, Any]:
    """One image or frame as plain values."""
    width, height = frame.size
    return {
        "source": frame.source.path,
        "frame": frame.index,
        "time": None if frame.index is None else round(float(frame.time), 6),
        "width": width or None,
        "height": height or None,
        "predictions": people.to_dict()["predictions"],
    }


class JsonLines(TextFile):
    """The header as a line, then a line for each image or frame."""

    def begin(self) -> str:
        return json.dumps(self.run.header(), allow_nan=False) + "\n"

    def write(self, frame: Frame, people: People) -> None:
        self.append(json.dumps(_entry(frame, people), allow_nan=False) + "\n")


class JsonDocument(TextFile):
    """One document: the header, and in it `images`, a list of what JSON lines have.

    It is written as it grows: a long video does not stay in memory.
    """

    _separator = ""

    def begin(self) -> str:
        header = json.dumps(self.run.header(), allow_nan=False)
        return header.removesuffix("}") + ', "images": [\n'

    def write(self, frame: Frame, people: People) -> None:
        self.append(self._separator + json.dumps(_entry(frame, people), allow_nan=False))
        self._separator = ",\n"

    def end(self) -> str:
        return "\n]}\n"


class Table(TextFile):
    """CSV, a row per person; cells of what there is not are empty."""

    def begin(self) -> str:
        return _rows([[*_COLUMNS, *joint_columns(self.run.joints)]])

    def write(self, frame: Frame, people: People) -> None:
        entry = _entry(frame, people)
        rows = []
        for number, person in enumerate(entry["predictions"]):
            points = iter(person["keypoints"])
            row = [entry["source"], entry["frame"], entry["time"], number, person.get("id")]
            row += [person["score"], *person["bbox"]]
            for x, y, score, state in zip(points, points, points, person["states"], strict=True):
                row += ["", "", "", state] if state == "missing" else [x, y, score, state]
            rows.append(row)
        self.append(_rows(rows))


def _rows(rows: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
