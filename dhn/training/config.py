"""The configuration of a training run: presets, YAML files and `a.b=value` overrides."""

import difflib
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic
import yaml

from dhn.base.errors import DhnError, SettingError
from dhn.base.files import read_bytes
from dhn.training.settings import SECTIONS, Config

DEFAULT_PRESET = "doublehighernet_w32_crowdpose"
# 010 would be 8, and 1:30 would be 90.
_NO_TEXT = re.compile(r"[\x00\ud800-\udfff]")
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")
_MAX_YAML = 100_000  # characters
_MAX_DEPTH = 8  # a section, a setting, a list of numbers


def presets() -> list[str]:
    """Names that `load_config` knows."""
    folder = resources.files("dhn.training") / "presets"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())


def preset_text(name: str) -> str:
    """The YAML of a preset, which begins with comments that say what it is."""
    file = resources.files("dhn.training") / "presets" / f"{name}.yaml"
    return file.read_text(encoding="utf-8")


def load_config(source: str = DEFAULT_PRESET, overrides: Sequence[str] = ()) -> Config:
    """Reads a preset or a YAML file and applies overrides.

    Args:
        source: the name of a preset, or the path of a YAML file.
        overrides: `a.b=value`, with the value in YAML.

    Raises:
        DhnError: there is no such preset or file, it is not YAML, a key is unknown (the message
            has the nearest right one) or a value is out of range.
    """
    return override_config(_read(source), overrides, source)


def override_config(values: dict[str, Any], overrides: Sequence[str], source: str) -> Config:
    """Applies overrides to a dictionary of settings and validates it.

    Args:
        values: changed in place.
        overrides: as for `load_config`.
        source: what error messages name.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise DhnError(f"{override!r}: overrides are written a.b=value, like train.epochs=10")
        _set(values, key.strip().split("."), _parse(text, override), override)
    try:
        return Config.model_validate(values)
    except pydantic.ValidationError as error:
        raise DhnError(f"{source}: {_explain(error)}") from error


def _read(source: str) -> dict[str, Any]:
    if source in presets():
        text = preset_text(source)
    elif Path(source).suffix in (".yaml", ".yml"):
        try:
            text = read_bytes(source).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DhnError(f"{source}: cannot be read ({error})") from error
    else:
        near = difflib.get_close_matches(source, presets(), 1)
        hint = f"did you mean {near[0]}?" if near else f"presets: {', '.join(presets())}"
        raise SettingError("config", source, f"neither a preset nor a .yaml file; {hint}")
    values = _parse(text, source)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise DhnError(f"{source}: must hold sections like `train:` with settings in them")
    return values


def _parse(text: str, source: str) -> Any:
    name = source if len(source) <= 200 else source[:200] + "..."
    if len(text) > _MAX_YAML:
        raise DhnError(f"{name}: is too long for settings ({len(text)} characters)")
    try:
        _check_plain(text, name)
        return yaml.safe_load(text)
    # ValueError: a date that does not exist, or a number with thousands of digits.
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise DhnError(f"{name}: is not YAML ({problem[:300]})") from error


def _check_plain(text: str, name: str) -> None:
    """Refuses what settings never need, and what could blow up when it is built.

    An alias can stand for a list of aliases, and so a short text for billions of values.
    """
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.ScalarEvent) and _NO_TEXT.search(event.value):
            raise DhnError(f"{name}: {event.value[:50]!r} has characters that no name or file has")
        plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        value: str = event.value if plain else ""  # type: ignore[attr-defined]
        if _OTHER_BASE.fullmatch(value):
            raise DhnError(
                f"{name}: YAML reads {value[:50]} in base 8 or 60; write a plain number, or "
                "quote text"
            )
        if isinstance(event, yaml.AliasEvent):
            raise DhnError(f"{name}: has YAML aliases (*name), which settings do not take")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise DhnError(f"{name}: is nested too deep for settings")


def _set(values: dict[str, Any], path: list[str], value: Any, override: str) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise DhnError(f"{override!r}: {name} is a value, not a section")
    # YAML reads 1e-3 as text; pydantic turns it into a number where one is wanted.
    values[path[-1]] = value


def _explain(error: pydantic.ValidationError) -> str:
    """The first complaint, with the nearest right key where the key is unknown."""
    first = _deepest(error)
    # pydantic puts the name of a type where a setting may have several.
    path = ".".join(str(part) for part in first["loc"] if str(part).replace("_", "").isalnum())
    if first["type"] == "extra_forbidden":
        near = _nearest(path)
        return f"unknown setting {path}" + (f"; did you mean {near}?" if near else "")
    message = first["msg"].removeprefix("Value error, ")
    return f"{path}: {message}, not {_shortened(first['input'])}" if path else message


def _shortened(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer with thousands of digits
        return "so large a number"
    return text if len(text) <= 100 else text[:100] + "..."


def _deepest(error: pydantic.ValidationError) -> Any:
    """The first complaint; of a setting that may have several types, the one that says most."""
    errors = error.errors()
    same = [one for one in errors if one["loc"][:2] == errors[0]["loc"][:2]]
    return max(same, key=lambda one: len(one["loc"]))


def _nearest(path: str) -> str | None:
    """The section or setting with the nearest name, from the same section if there is one."""
    section, _, name = path.rpartition(".")
    own = (
        {key: f"{section}.{key}" for key in SECTIONS[section].model_fields}
        if section in SECTIONS
        else {}
    )
    known = {section: section for section in SECTIONS}
    for other, settings in SECTIONS.items():
        known |= {key: f"{other}.{key}" for key in settings.model_fields}
    for names in (own, known):
        for near in difflib.get_close_matches(name, names, 1):
            return names[near]
    return None
