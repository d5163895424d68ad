"""Explains the settings: comments in a YAML file, and the page docs/settings.md.

python -m dhn.training.describe docs/settings.md      # after a change of settings or presets
"""

import itertools
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dhn.base.files import written_whole
from dhn.training.config import DEFAULT_PRESET, load_config, preset_text, presets
from dhn.training.settings import SECTIONS, Config, Section

_COLUMNS = 99
_HEAD = f"""# Settings

`dhn train --config NAME` takes a preset, `dhn train --config FILE.yaml` a file of your own, and
`KEY=VALUE` after it changes a setting: `dhn train --config demo train.epochs=20
data.scale=[0.9,1.1]`. Without `--config`, the preset is `{DEFAULT_PRESET}`. A
file may leave out the settings that it does not change. `dhn train --show-config` prints all of
them with their meanings, and the folder of a run keeps them in `config.yaml`.

This page is made from `dhn/training/settings.py` and the presets by
`python -m dhn.training.describe docs/settings.md`.
"""


def commented_yaml(config: Config) -> str:
    """The settings as YAML, with the meaning of each in the comment above it."""
    return "\n".join(_commented_lines(config)) + "\n"


def _commented_lines(config: Config) -> Iterator[str]:
    for name, section in config:
        if name != "network":
            yield ""
        yield from _wrapped(_doc(section), "# ")
        yield f"{name}:"
        values = section.model_dump(mode="json")
        for key, (meaning, allowed) in _meanings(type(section)).items():
            yield from _wrapped(f"{meaning} [{allowed}]", "  # ")
            yield f"  {key}: {_yaml(values[key])}"


def settings_page() -> str:
    """The page docs/settings.md, in Markdown."""
    return "\n".join([_HEAD, *_section_lines(), *_preset_lines()]) + "\n"


def _section_lines() -> Iterator[str]:
    for name, section in SECTIONS.items():
        yield f"## {name}\n"
        yield f"{_doc(section)}\n"
        defaults = section().model_dump(mode="json")
        for key, (meaning, allowed) in _meanings(section).items():
            default = _yaml(defaults[key])
            yield from _wrapped(f"**`{name}.{key}`** ({allowed}; default `{default}`).", "- ", "  ")
            yield from _wrapped(meaning, "  ")
        yield ""


def _preset_lines() -> Iterator[str]:
    yield "## Presets\n"
    yield "What a preset sets to something other than the default:\n"
    for name in presets():
        yield f"### {name}\n"
        yield from _wrapped(" ".join(preset_comment(name)))
        yield "\n```yaml"
        yield from _differences(load_config(name))
        yield "```\n"


def preset_comment(name: str) -> list[str]:
    """The lines of the comment at the head of a preset; the first one says what it is."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), preset_text(name).splitlines())
    return [line.removeprefix("#").strip() for line in lines]


def _differences(config: Config) -> Iterator[str]:
    for name, section in config:
        values, defaults = (s.model_dump(mode="json") for s in (section, SECTIONS[name]()))
        changed = {key: value for key, value in values.items() if value != defaults[key]}
        if changed:
            yield f"{name}:"
            yield from (f"  {key}: {_yaml(value)}" for key, value in changed.items())


def _meanings(section: type[Section]) -> dict[str, tuple[str, str]]:
    """The meaning of each setting of a section, and which values it takes."""
    schema = section.model_json_schema(mode="serialization")["properties"]
    return {
        key: (field.description or "", _allowed(schema[key]))
        for key, field in section.model_fields.items()
    }


def _allowed(schema: dict[str, Any]) -> str:
    """A JSON schema in words, like `integer from 64 to 2048, a multiple of 64`."""
    if "$ref" in schema or schema.get("type") == "object":
        return "a mapping"
    if "anyOf" in schema:
        return " | ".join(_allowed(one) for one in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = schema["type"]
    if kind == "array" and "prefixItems" in schema:
        items = schema["prefixItems"]
        return f"{len(items)} values, each: {_allowed(items[0])}"
    if kind == "array":
        return f"a list, each: {_allowed(schema['items'])}"
    words = {"string": "text", "boolean": "true | false"}.get(kind, kind)
    return words + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    words = []
    if low is not None and high is not None:
        words.append(f"from {low:g} to {high:g}")
    else:
        bounds = {"at least": low, "above": above, "at most": high, "below": below}
        words += [f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None]
    if "multipleOf" in schema:
        words.append(f"a multiple of {schema['multipleOf']}")
    return " " + ", ".join(words) if words else ""


def _yaml(value: Any) -> str:
    """A value in YAML, on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("...\n").strip()  # which marks the end of a bare number or word


def _doc(section: Section | type[Section]) -> str:
    return (section.__doc__ or "").strip()


def _wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


if __name__ == "__main__":
    with written_whole(Path(sys.argv[1])) as page:
        page.write_text(settings_page(), encoding="utf-8")
