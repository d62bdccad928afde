"""Configuration: YAML under flags, and mistakes refused by name."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import yaml

from runtime.arguments import parse
from runtime.config import check_settings, own_first, setting
from runtime.errors import UserError
from runtime.formats.settings_files import changed_fields, flatten, load_yaml, to_yaml
from runtime.shipped import find_configuration, scales


@dataclass
class Model:
    width: int = 4
    """Channels."""
    multipliers: tuple[int, ...] = (1, 2)
    """Of the width, per level."""


@dataclass
class Stage:
    root: Path
    """Set to read."""
    output_dir: Path
    """Run folder."""
    txt_file: Path | None = None
    """List of subjects."""
    learning_rate: float = 1e-3
    """Per step."""
    steps: int = field(default=3, metadata={"resumable": True})
    """Optimiser steps."""
    kind: Literal["a", "b"] = "a"
    """Which."""
    shuffle: bool = False
    """Whether to shuffle."""
    names: tuple[str, ...] = ()
    """Some names."""
    model: Model = field(default_factory=lambda: Model(width=7))
    """The model."""


@dataclass
class Outer:
    stage: Model = field(default_factory=Model)
    """One level."""


@dataclass
class Outermost:
    outer: Outer = field(default_factory=lambda: Outer(Model(width=9)))
    """Two levels, with its own defaults."""


REQUIRED = ["--root", "r", "--output_dir", "o"]


def parsed(arguments, tmp_path, text=None):
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
        arguments = ["--config", str(tmp_path / "c.yaml"), *arguments]
    return parse(Stage, arguments, "triavatar stage")


def test_flags_win_over_yaml_over_defaults(tmp_path):
    text = "root: y\nlearning_rate: 1e-4\nsteps: 9\nmodel:\n  multipliers: [3, 4]\n"
    config = parsed(["--output-dir=o", "--steps", "11", "--shuffle"], tmp_path, text)
    assert config == Stage(
        Path("y"),
        Path("o"),
        learning_rate=1e-4,
        steps=11,
        shuffle=True,
        model=Model(7, (3, 4)),
    )
    assert parsed(["--no-shuffle", *REQUIRED], tmp_path, "shuffle: true").shuffle is False


def test_last_config_counts(tmp_path):
    (tmp_path / "first.yaml").write_text("steps: 100\nkind: b\n")
    (tmp_path / "second.yaml").write_text("steps: 5\n")
    files = ["--config", str(tmp_path / "first.yaml"), f"--config={tmp_path / 'second.yaml'}"]
    config = parse(Stage, [*files, *REQUIRED], "x")
    assert (config.steps, config.kind) == (5, "a")


def test_yaml_form_is_complete_and_reads_back(tmp_path):
    config = parsed([*REQUIRED, "--names", "p", "q", "--txt_file", "l.txt"], tmp_path)
    again = parsed([], tmp_path, to_yaml(config))
    assert again == config
    assert yaml.safe_load(to_yaml(config))["model"] == {"width": 7, "multipliers": [1, 2]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rot", "r"], ["--rot", "did you mean --root?"]),
        (["--no-root", "r"], ["--no-root"]),
        (["--model.widht", "3"], ["--model.widht", "--model.width"]),
        (["--root", "r"], ["--output_dir"]),
        ([*REQUIRED, "--learning_rate", "abc"], ["--learning_rate", "abc"]),
        ([*REQUIRED, "--kind", "c"], ["--kind", "'c'"]),
        ([*REQUIRED, "stray"], ["stray"]),
        ([*REQUIRED, "--steps"], ["--steps"]),
        ([*REQUIRED, "--config"], ["--config"]),
        ([*REQUIRED, "--config", "nowhere.yaml"], ["nowhere.yaml"]),
    ],
)
def test_wrong_flags_are_named(arguments, words, tmp_path, capsys):
    with pytest.raises(UserError) as caught:
        parsed(arguments, tmp_path)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rat: 3", ["learning_rat", "did you mean learning_rate?"]),
        ("model:\n  wdth: 3", ["model.wdth", "width"]),
        ("learning_rate: abc", ["learning_rate", "float", "abc"]),
        ("learning_rate: true", ["learning_rate", "float"]),
        ("steps: 2.5", ["steps", "int"]),
        ("shuffle: 1", ["shuffle", "bool"]),
        ("kind: c", ["kind"]),
        ("names: tensorboard", ["names", "tensorboard"]),
        ("model: 3", ["model"]),
        ("[1, 2]", ["mapping"]),
        ("a: : b", ["YAML"]),
    ],
)
def test_wrong_keys_are_named(text, words, tmp_path):
    with pytest.raises(UserError) as caught:
        parsed(REQUIRED, tmp_path, text)
    assert all(word in str(caught.value) for word in [*words, "c.yaml"])


def test_help_shows_defaults_and_meaning(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Stage, ["--help"], "triavatar stage", "Does it.")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("Does it.", "--learning_rate", "Per step.", "0.001", "--model.width", "7"):
        assert words in shown


def test_changed_fields_spare_resumable_ones_and_the_folder():
    before = yaml.safe_load(to_yaml(Stage(Path("r"), Path("o"))))
    same = Stage(Path("r"), Path("elsewhere"), steps=99)
    assert changed_fields(before, same) == []
    other = Stage(Path("r"), Path("o"), model=Model(7, (1, 3)))
    assert changed_fields(before, other) == [("model.multipliers", [1, 2], [1, 3])]


def test_flatten_uses_dots():
    flat = flatten(Stage(Path("r"), Path("o")))
    assert flat["model.width"] == 7 and flat["root"] == "r"


def test_defaults_two_levels_down_survive_a_partial_yaml(tmp_path):
    assert parse(Outermost, [], "x").outer.stage == Model(9, (1, 2))
    (tmp_path / "c.yaml").write_text("outer:\n  stage:\n    multipliers: [5]\n")
    config = parse(Outermost, ["--config", str(tmp_path / "c.yaml")], "x")
    assert config.outer.stage == Model(9, (5,))
    assert parse(Outermost, ["--outer.stage.width", "3"], "x").outer.stage.width == 3


@dataclass(kw_only=True)
class Inner:
    grid: int = setting(128, at_least=1)
    share: float = setting(0.5, at_least=0, below=1)


@dataclass(kw_only=True)
class Shared:
    start: int = 0
    removed_settings: ClassVar[dict[str, str]] = {"stale": "leave it out"}


@own_first
@dataclass(kw_only=True)
class Bounded(Shared):
    output_dir: Path = Path("out")
    save_every: int | None = setting(None, resumable=True, above=0)
    sizes: tuple[int, ...] = setting((1, 2), at_least=1)
    fit: Inner = field(default_factory=Inner)

    def check(self) -> None:
        if self.start and not self.fit.share:
            raise UserError("start and share contradict each other")


@pytest.mark.parametrize(
    "flag, value, words",
    [
        ("--save_every", "0", "--save_every is 0 but must be more than 0"),
        ("--fit.grid", "-3", "--fit.grid is -3 but must be at least 1"),
        ("--fit.share", "1", "--fit.share is 1.0 but must be at least 0 and less than 1"),
        ("--fit.share", "nan", "--fit.share is nan but must be"),
        ("--sizes", "0", "--sizes is 0 but must be at least 1"),
        ("--stale", "3", "--stale is gone: leave it out"),
    ],
)
def test_values_out_of_bounds_are_refused_wherever_they_stand(tmp_path, flag, value, words):
    with pytest.raises(UserError, match=words):
        parse(Bounded, [flag, value], "prog")
    key = flag.removeprefix("--")
    outer, _, inner = key.partition(".")
    written = {outer: {inner: float(value)}} if inner else {outer: int(value)}
    if key == "fit.grid":
        written = {"fit": {"grid": int(value)}}
    if key == "sizes":
        written = {"sizes": [0]}
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(written))
    with pytest.raises(UserError, match=f'settings.yaml: key "{key}" is ' + words.split(" is ")[1]):
        parse(Bounded, ["--config", str(file)], "prog")


def test_bounds_hold_for_configurations_made_in_python():
    with pytest.raises(UserError, match="fit.grid is 0 but must be at least 1"):
        check_settings(Bounded(fit=Inner(grid=0)))
    with pytest.raises(UserError, match="start and share contradict"):
        check_settings(Bounded(start=1, fit=Inner(share=0)))
    check_settings(Bounded())


def test_a_stage_lists_its_own_settings_before_those_it_shares():
    assert list(yaml.safe_load(to_yaml(Bounded()))) == [
        "output_dir", "save_every", "sizes", "fit", "start",
    ]  # fmt: skip


def test_a_run_goes_on_although_a_setting_is_gone():
    recorded = yaml.safe_load(to_yaml(Bounded()) + "stale: 300.0\n")
    assert changed_fields(recorded, Bounded()) == []


@dataclass
class _Group:
    level: str = "full"
    steps: int = 3


@dataclass
class _Inputs:
    photos: tuple[Path, ...] = ()
    root: Path | None = None
    bold: bool = False
    place: tuple[float, float] = (0.0, 0.0)
    group: _Group = field(default_factory=_Group)


def test_values_without_a_flag_name_the_input():
    def photos(line):
        return [str(p) for p in parse(_Inputs, line.split(), "p", first="photos").photos]

    assert photos("a b") == ["a", "b"]
    assert photos("--root r a --bold b --place 1 2 c") == ["a", "b", "c"]
    assert photos("--root=r a --no-bold") == ["a"]
    assert photos("--photos a b") == ["a", "b"]
    assert parse(_Inputs, ["x"], "p", first="root").root == Path("x")
    with pytest.raises(UserError, match="y is one too many"):
        parse(_Inputs, ["x", "y"], "p", first="root")
    with pytest.raises(UserError, match="x and --root"):
        parse(_Inputs, ["x", "--root", "y"], "p", first="root")


def test_a_group_s_flag_is_its_level():
    assert parse(_Inputs, ["--group", "off"], "p").group == _Group("off")
    assert parse(_Inputs, ["--group=off", "--group.steps", "4"], "p").group == _Group("off", 4)


def test_shipped_configurations_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_yaml(find_configuration(Path("debug/base.yaml")))["plane_size"] == 32
    assert load_yaml(find_configuration(Path("configs/debug/base.yaml")))["plane_size"] == 32
    with pytest.raises(UserError, match="has no part nothing"):
        load_yaml(find_configuration(Path("debug/nothing.yaml")))
    (tmp_path / "debug").mkdir()
    (tmp_path / "debug" / "base.yaml").write_text("own: 1")
    assert load_yaml(find_configuration(Path("debug/base.yaml"))) == {"own": 1}
    assert {"debug", "small", "paper"} <= set(scales())


def test_a_part_of_a_file_may_extend_one_before_it(tmp_path):
    (tmp_path / "own.yaml").write_text(
        "shared:\n  fit: {rays: 8, steps: 4}\n"
        "one:\n  extends: shared\n  rounds: 2\n  fit: {steps: 5}\n"
        "none:\nwrong:\n  extends: later\nlater: {}\n"
    )
    assert load_yaml(tmp_path / "own" / "one.yaml") == {"fit": {"rays": 8, "steps": 5}, "rounds": 2}
    assert load_yaml(tmp_path / "own" / "none.yaml") == {}
    with pytest.raises(UserError, match="has no part later"):
        load_yaml(tmp_path / "own" / "wrong.yaml")
    with pytest.raises(UserError, match="has no part two"):
        load_yaml(tmp_path / "own" / "two.yaml")
