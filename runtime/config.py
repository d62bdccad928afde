"""Typed configuration: one dataclass per stage, its YAML form and its comparison."""

import dataclasses
import difflib
import operator
import reprlib
import typing
from pathlib import Path
from typing import Any

import dacite
import yaml

from runtime.errors import UserError
from runtime.files import read_text

_BOUNDS = {
    "at_least": (operator.ge, "at least"),
    "above": (operator.gt, "more than"),
    "at_most": (operator.le, "at most"),
    "below": (operator.lt, "less than"),
}
Kind = typing.TypeVar("Kind")


def setting(default: Any, *, resumable: bool = False, **bounds: float) -> Any:
    """Declare a field of a stage's dataclass whose value has bounds.

    Args:
        default: its default.
        resumable: whether a run may go on with another value.
        bounds: any of ``at_least``, ``above``, ``at_most``, ``below``; of every item of a tuple.
            None, where the type allows it, is in bounds.
    """
    unknown = bounds.keys() - _BOUNDS.keys()
    if unknown:
        raise TypeError(f"no such bounds: {', '.join(unknown)}")
    return dataclasses.field(default=default, metadata={"resumable": resumable, **bounds})


def own_first(cls: type[Kind]) -> type[Kind]:
    """List a dataclass's own fields before those it inherits, in its help and its YAML."""
    fields: dict[str, Any] = getattr(cls, "__dataclass_fields__")  # noqa: B009
    own = {name: fields[name] for name in cls.__annotations__ if name in fields}
    setattr(cls, "__dataclass_fields__", {**own, **fields})  # noqa: B010
    return cls


def check_settings(config: Any, where: str = "{name}", prefix: str = "") -> None:
    """Refuse values out of the bounds that their fields declare (:func:`setting`).

    Args:
        config: a dataclass, perhaps with others in it.
        where: how an error calls a setting, with its dotted ``{name}``.

    Raises:
        UserError: the setting, its value and what it must be.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            check_settings(value, where, f"{name}.")
        else:
            _check_bounds(field, value, where.format(name=name))


def _check_bounds(field: dataclasses.Field, value: Any, what: str) -> None:
    for item in value if isinstance(value, list | tuple) else [value]:
        for bound, (holds, words) in _BOUNDS.items():
            limit = field.metadata.get(bound)
            if limit is None or item is None or isinstance(item, str):
                continue
            if not holds(item, limit):
                limits = [
                    f"{words} {field.metadata[bound]}"
                    for bound, (_, words) in _BOUNDS.items()
                    if bound in field.metadata
                ]
                raise UserError(f"{what} is {item} but must be {' and '.join(limits)}.")


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


def to_yaml(config: Any) -> str:
    """All fields of ``config`` as YAML, in the order they are declared."""
    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False, allow_unicode=True)


def changed_fields(
    recorded: str, config: Any, where: str = "the recorded settings"
) -> list[tuple[str, Any, Any]]:
    """Fields that differ from a recorded ``config.yaml``: (dotted name, recorded, now).

    Fields declared ``field(metadata={"resumable": True})`` are left out, and so is ``output_dir``:
    a run folder may be moved.
    """
    before = flatten(parse_yaml(recorded, where))
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


def refuse_removed(cls: type, name: str, what: str) -> None:
    """Refuse a setting that earlier versions had, with what its class says to do instead.

    Args:
        what: the flag or key as it was given, with its place.

    Raises:
        UserError: it is one.
    """
    removed: dict[str, str] = getattr(cls, "removed_settings", {})
    if name in removed:
        raise UserError(f"{what} is gone: {removed[name]}.")


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """``"; did you mean X?"`` for the known name closest to ``name``, or ``"; known: …"``."""
    options = list(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(options)}."


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


def _to_float(value: Any) -> float:
    # YAML 1.1 reads 1e-4 (no dot) as a string; people mean the number.
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return float(value)


def _takes_tuple(kind: Any) -> bool:
    """YAML has lists only; a field of a tuple type takes one."""
    return tuple in (typing.get_origin(kind), *map(typing.get_origin, typing.get_args(kind)))


def typed_values(cls: type, values: dict[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """``values`` converted to the field types of ``cls``; nested dataclasses stay mappings."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    names = list(fields)
    typed: dict[str, Any] = {}
    for given, value in values.items():
        key = str(given).replace("-", "_")
        refuse_removed(cls, key, f'{where}: key "{prefix}{given}"')
        if key not in names:
            raise UserError(f'{where}: unknown key "{prefix}{given}"{nearest(key, names)}')
        kind = hints[key]
        if dataclasses.is_dataclass(kind):
            if not isinstance(value, dict):
                raise UserError(f'{where}: key "{prefix}{given}" must be a mapping.')
            typed[key] = typed_values(typing.cast(type, kind), value, where, f"{prefix}{key}.")
            continue
        holder = dataclasses.make_dataclass("holder", [(key, kind)])
        ready = tuple(value) if isinstance(value, list) and _takes_tuple(kind) else value
        options = dacite.Config(type_hooks={float: _to_float, Path: Path})
        try:
            typed[key] = getattr(dacite.from_dict(holder, {key: ready}, options), key)
        except (dacite.DaciteError, ValueError, TypeError, OverflowError):
            expected = str(kind).replace("typing.", "") if typing.get_origin(kind) else None
            expected = expected or getattr(kind, "__name__", str(kind))
            raise UserError(
                f'{where}: key "{prefix}{given}" must be {expected}, not {reprlib.repr(value)}.'
            ) from None
        _check_bounds(fields[key], typed[key], f'{where}: key "{prefix}{given}"')
    return typed
