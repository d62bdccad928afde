"""The command line of one stage: flags over a YAML file over the dataclass's defaults."""

import contextlib
import dataclasses
import io
import itertools
import re
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from runtime.config import check_settings, nearest, refuse_removed, typed_values
from runtime.errors import UserError
from runtime.formats.settings_files import load_yaml, merged
from runtime.shipped import find_configuration

Config = TypeVar("Config")


def _default(cls: type, values: dict[str, Any]) -> Any:
    """An instance with ``values``, defaults, and tyro's mark where a required value is missing.

    Made without ``__init__``: a ``__post_init__`` must not see the marks.
    """
    import tyro

    hints = typing.get_type_hints(cls)
    instance = object.__new__(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            given = merged(_defaults_of(field), values.get(field.name, {}))
            value = _default(typing.cast(type, kind), given)
        elif field.name in values:
            value = values[field.name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = tyro.MISSING
        object.__setattr__(instance, field.name, value)
    return instance


def _defaults_of(field: dataclasses.Field) -> dict[str, Any]:
    """The values of a nested dataclass's default, which may differ from its class's own."""
    if field.default is not dataclasses.MISSING:
        default: Any = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        return {}
    return _as_mapping(default)


def _as_mapping(config: Any) -> dict[str, Any]:
    """Fields and values, nested dataclasses as mappings too."""
    pairs = ((field.name, getattr(config, field.name)) for field in dataclasses.fields(config))
    return {k: _as_mapping(v) if dataclasses.is_dataclass(v) else v for k, v in pairs}


def _flags(cls: type, prefix: str = "") -> dict[str, Any]:
    """Dotted name of every flag → type of its value."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            found.update(_flags(typing.cast(type, kind), f"{prefix}{field.name}."))
        else:
            found[prefix + field.name] = kind
    return found


def name_positional(cls: type, arguments: list[str], first: str) -> list[str]:
    """Put the flag ``--first`` before the values that stand without one.

    Args:
        cls: the stage's dataclass.
        arguments: the command line after the subcommand and without ``--config``.
        first: the setting that values without a flag mean.

    Raises:
        UserError: the flag is given too, or there are several values where one is taken.
    """
    kinds = _flags(cls)
    named: list[str] = []
    values: list[str] = []
    waiting = 0.0  # values that the last flag still takes
    for argument in arguments:
        if re.match(r"--?[A-Za-z]", argument):
            named.append(argument)
            waiting = _arity(kinds.get(argument.lstrip("-").replace("-", "_")))
        elif waiting:
            named.append(argument)
            waiting -= 1
        else:
            values.append(argument)
    if not values:
        return named
    flag = f"--{first}"
    if any(argument.split("=")[0] == flag for argument in named):
        raise UserError(f"{values[0]} and {flag} both name the {first}; give one of them.")
    if len(values) > _arity(kinds[first]):
        raise UserError(f"{values[1]} is one too many; only one {first} is taken (see --help).")
    return [flag, *values, *named]


def expand_levels(cls: type, arguments: list[str]) -> list[str]:
    """Let the flag of a group of settings that has a ``level`` mean that level."""
    known = _flags(cls)
    levels = {f"--{name[: -len('.level')]}" for name in known if name.endswith(".level")}
    expanded = []
    for argument in arguments:
        flag, _, value = argument.partition("=")
        named = f"{flag}.level" if flag in levels else flag
        expanded.append(f"{named}={value}" if "=" in argument else named)
    return expanded


def _arity(kind: Any) -> float:
    """Number of values that a flag takes on the command line."""
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    if typing.get_origin(kind) in (typing.Union, types.UnionType) and options:
        return max(map(_arity, options))
    if typing.get_origin(kind) is tuple:
        return float("inf") if options[-1:] == [...] else len(options)
    return 0 if kind is bool or kind is None else 1


def _check_flags(cls: type, arguments: list[str]) -> set[str]:
    """Refuse flags that don't exist; the names of those given."""
    known = _flags(cls)
    given: set[str] = set()
    for argument in arguments:
        if not re.match(r"--?[A-Za-z]", argument):
            continue
        name = argument.lstrip("-").split("=")[0].replace("-", "_")
        *outer, last = name.split(".")
        positive = ".".join([*outer, last.removeprefix("no_")])
        if argument.startswith("--") and name in known:
            given.add(name)
        elif argument.startswith("--") and known.get(positive) is bool:
            given.add(positive)
        else:
            refuse_removed(cls, name, argument.split("=")[0])
            suggestion = nearest(name, known).replace("did you mean ", "did you mean --")
            raise UserError(f"unknown flag {argument.split('=')[0]}{suggestion}")
    return given


def _missing(instance: Any, given: set[str], prefix: str = "") -> list[str]:
    import tyro

    names: list[str] = []
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            names += _missing(value, given, f"{prefix}{field.name}.")
        elif value is tyro.MISSING and prefix + field.name not in given:
            names.append(prefix + field.name)
    return names


def parse(
    cls: type[Config], arguments: list[str], prog: str, description: str = "", first: str = ""
) -> Config:
    """Fill ``cls`` from flags, which win over the YAML file named by ``--config``.

    Args:
        cls: a dataclass of plain types, paths and nested dataclasses.
        arguments: the command line after the subcommand. ``-`` and ``_`` are the same in names;
            the last ``--config`` counts.
        prog: the command's name, for the help.
        description: what the command does, for the help.
        first: the setting that values without a flag mean; none may stand without one otherwise.

    Raises:
        UserError: an unknown flag or key (with the nearest known name), a value of the wrong
            type, or a required setting that is missing.
        SystemExit: after ``--help``.
    """
    import tyro

    file, rest = split_config(arguments)
    if file is not None:
        file = find_configuration(file)
    values = typed_values(cls, load_yaml(file), str(file)) if file is not None else {}
    default = _default(cls, values)
    wants_help = any(argument in ("-h", "--help") for argument in rest)
    if wants_help:
        rest = ["--help"]
        if first:
            description = f"usage: {prog} {first.upper()} [flags]. {description}"
    else:
        rest = expand_levels(cls, rest)
        if first:
            rest = name_positional(cls, rest, first)
        missing = _missing(default, _check_flags(cls, rest))
        if missing:
            flags = ", ".join("--" + name for name in missing)
            raise UserError(f"{prog} needs {flags}; give the flag or the key in --config.")
    printed = io.StringIO()
    try:
        with contextlib.ExitStack() as stack:
            if not wants_help:
                stack.enter_context(contextlib.redirect_stdout(printed))
                stack.enter_context(contextlib.redirect_stderr(printed))
            config = tyro.cli(
                cls,
                prog=prog,
                description=description,
                args=rest,
                default=default,
                use_underscores=True,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_sentence(printed.getvalue(), prog)) from None
    check_settings(config, "--{name}")
    return config


def split_config(arguments: list[str]) -> tuple[Path | None, list[str]]:
    """Take ``--config FILE`` or ``--config=FILE`` out of the arguments."""
    file: Path | None = None
    rest: list[str] = []
    queue = iter(arguments)
    for argument in queue:
        if argument == "--config":
            value = next(queue, None)
            if value is None:
                raise UserError("--config needs the name of a YAML file.")
            file = Path(value)
        elif argument.startswith("--config="):
            file = Path(argument.split("=", 1)[1])
        else:
            rest.append(argument)
    return file, rest


def _sentence(printed: str, prog: str) -> str:
    """tyro's message, drawn in a box, as one line."""
    lines = [line.strip(" |+-│╭╰─╮╯") for line in printed.splitlines()]
    body = itertools.takewhile(
        lambda line: not line.startswith(("Argument helptext", "For full helptext")),
        # The first line is the box's title.
        filter(None, lines[1:]),
    )
    return f"{' '.join(body).rstrip('.')} (see {prog} --help)."
