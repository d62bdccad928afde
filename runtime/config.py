"""Typed configuration: one dataclass per stage, with bounds and contradictions stated in it."""

import dataclasses
import difflib
import math
import operator
import reprlib
import typing
from pathlib import Path
from typing import Any

import dacite

from runtime.errors import UserError

_BOUNDS = {
    "at_least": (operator.ge, "at least"),
    "above": (operator.gt, "more than"),
    "at_most": (operator.le, "at most"),
    "below": (operator.lt, "less than"),
}
_MOST = 2**63 - 1  # of an integer, wherever it goes
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


def check_settings(config: Any, where: str = "{name}") -> None:
    """Refuse settings that no stage can be run with; every stage begins so.

    Values must lie within the bounds that their fields declare (:func:`setting`). A dataclass whose
    settings can contradict each other has a method ``check`` that refuses those.

    Args:
        config: a dataclass, perhaps with others in it.
        where: how an error calls a setting, with its dotted ``{name}``.

    Raises:
        UserError: the setting, its value and what it must be; or the settings that contradict.
    """
    for group, prefix in _groups(config):
        for field in dataclasses.fields(group):
            _check_bounds(field, getattr(group, field.name), where.format(name=prefix + field.name))
    for group, _ in _groups(config):
        if callable(check := getattr(group, "check", None)):
            check()


def _groups(config: Any, prefix: str = "") -> typing.Iterator[tuple[Any, str]]:
    """A dataclass and those nested in it, each with what its settings' dotted names begin with."""
    yield config, prefix
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _groups(value, f"{prefix}{field.name}.")


def _check_bounds(field: dataclasses.Field, value: Any, what: str) -> None:
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, float) and not math.isfinite(item):
            raise UserError(f"{what} is {item} but must be a finite number.")
        if isinstance(item, int) and not -_MOST <= item <= _MOST:
            raise UserError(f"{what} is {item:.4g} but must be within ±2^63.")
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
