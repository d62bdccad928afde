"""YAML files of settings: those that people write, and the ``config.yaml`` of a run."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

import yaml

from runtime.config import nearest
from runtime.errors import UserError
from runtime.files import read_text


class _PlainLoader(yaml.SafeLoader):
    """YAML of mappings, lists, numbers, words: dates stay text, and nothing refers elsewhere."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith("timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        # Aliases of aliases make a file of a few lines expand to billions of values.
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors and aliases are not read; write the values out")
        return super().compose_node(parent, index)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping that YAML text holds; ``where`` names it in errors.

    Raises:
        UserError: it is not YAML, or is no mapping.
    """
    try:
        values = yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UserError(f"{where} is not valid YAML{place}: {error.problem}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        alias = "anchors" in str(error)
        problem = str(error) if alias else "it holds what no settings do"
        raise UserError(f"{where} is not valid YAML: {problem}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UserError(f"{where} must be a mapping of field names to values.")
    return values


def load_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds, or a part of a file of several.

    ``debug/base.yaml``, where there is no such file but a ``debug.yaml``, is the part ``base`` of
    that. A part may extend another one of its file: ``extends: NAME``.

    Raises:
        UserError: the file is missing, is not YAML, or is no mapping.
    """
    path = Path(path)
    parts = parts_file(path)
    if parts is not None:
        return _part(
            parse_yaml(read_text(parts, 2**20), f"configuration {parts}"), path.stem, parts
        )
    if not path.exists():
        raise UserError(f"configuration {path} does not exist; give --config a file.")
    return parse_yaml(read_text(path, 2**20), f"configuration {path}")


def parts_file(path: Path) -> Path | None:
    """The file that ``path`` names a part of, or None where it is a file of its own or nothing."""
    file = path.parent.with_suffix(".yaml") if path.parent.name else path
    return file if not path.exists() and path.suffix == ".yaml" and file.is_file() else None


def _part(parts: dict[str, Any], name: str, file: Path) -> dict[str, Any]:
    if name not in parts:
        raise UserError(f"configuration {file} has no part {name}{nearest(name, parts)}")
    own = parts[name] or {}
    if not isinstance(own, dict):
        raise UserError(f"configuration {file}: the part {name} must be a mapping.")
    if "extends" not in own:
        return own
    # Parts come after what they extend, so that no two extend each other.
    before = dict(list(parts.items())[: list(parts).index(name)])
    extended = _part(before, str(own.pop("extends")), file)
    return merged(extended, own)


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``over``, mapping by mapping."""
    nested = {k: merged(base[k], v) for k, v in over.items() if isinstance(base.get(k), dict)}
    return {**base, **over, **nested}


def to_yaml(config: Any) -> str:
    """All fields of ``config`` as YAML, in the order they are declared."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)


def flatten(config: Any) -> dict[str, Any]:
    """Dotted field name → value, e.g. ``{"model.channels": 16}``; paths become strings."""
    plain = config if isinstance(config, dict) else _plain(dataclasses.asdict(config))
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, dict):
            flat.update({f"{name}.{inner}": item for inner, item in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def changed_fields(before: dict[str, Any], config: Any) -> list[tuple[str, Any, Any]]:
    """Return the settings that differ from recorded ones: (dotted name, recorded, now).

    Fields declared ``field(metadata={"resumable": True})`` are left out, and so is ``output_dir``:
    a run folder may be moved.

    Args:
        before: the content of a run's ``config.yaml``.
        config: the dataclass as it is now.
    """
    before = flatten(before)
    now = flatten(parse_yaml(to_yaml(config), "the settings"))
    removed = getattr(type(config), "removed_settings", {})
    free = {"output_dir", *_resumable(type(config)), *removed}
    return [
        (name, before.get(name), now.get(name))
        for name in dict.fromkeys([*now, *before])
        if before.get(name) != now.get(name)
        and not any(name == item or name.startswith(item + ".") for item in free)
    ]


def _resumable(cls: type, prefix: str = "") -> typing.Iterator[str]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.metadata.get("resumable"):
            yield prefix + field.name
        elif dataclasses.is_dataclass(hints[field.name]):
            yield from _resumable(hints[field.name], f"{prefix}{field.name}.")


def run_yaml(stage: str, config: Any) -> str:
    """Return the ``config.yaml`` of a run: its stage and all of its settings."""
    return f"# stage: {stage}\n{to_yaml(config)}"


def refuse_other_run(recorded: str, folder: Path, stage: str, config: Any) -> None:
    """Hold a run to the stage and the settings that it was begun with.

    Args:
        recorded: what its ``config.yaml`` says; see :func:`run_yaml`.
        folder: the run folder, for messages.

    Raises:
        UserError: the stage is another one, or a setting that may not change has changed.
    """
    begun = re.match(r"# stage: (.+)", recorded)
    if begun and begun[1] != stage:
        raise UserError(
            f"{folder} holds a run of {begun[1]}, not of {stage}; give another --output_dir."
        )
    changed = changed_fields(parse_yaml(recorded, str(folder / "config.yaml")), config)
    if changed:
        name, before, now = changed[0]
        raise UserError(
            f"{folder} was started with {name}={before}, now {name}={now}; "
            "use the old value to resume or give another --output_dir."
        )
