"""What all pages share: templates, numbers as text, curves as SVG."""

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from dhn.base.files import written_whole
from dhn.base.version import __version__


class Line(NamedTuple):
    """A curve: its points with x and y in 0..1, and its name."""

    name: str
    points: Sequence[tuple[float, float]]


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> None:
    """Fills in a template of `dhn/pages/templates` and writes the page, whole or not at all."""
    text = _templates().get_template(template).render(content)
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {"percent": percent, "change": change, "words": words, "points": points}
    return found


def percent(value: float | None) -> str:
    """A share of 1 in percent, without the sign; a dash for None and for -1, which is nobody."""
    return "–" if value is None or value == -1 else f"{100 * value:.1f}"


def change(value: float | None) -> str:
    """A difference of shares in percent, with + or -."""
    # Adding 0 turns -0.0 into 0.0.
    return "–" if value is None else f"{round(100 * value, 1) + 0:+.1f}"


def words(name: str) -> str:
    """A key as words: AP_hard is AP hard."""
    return name.replace("_", " ")


def points(line: Sequence[tuple[float, float]], width: float, height: float) -> str:
    """The points of an SVG polyline; y grows upward in the curve and downward in SVG."""
    return " ".join(f"{x * width:.1f},{(1 - y) * height:.1f}" for x, y in line)


def versions() -> dict[str, str]:
    """What computed the figures."""
    return {
        "dhn": __version__,
        "numpy": metadata.version("numpy"),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
