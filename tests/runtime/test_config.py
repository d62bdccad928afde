"""Configuration: YAML under flags, and mistakes refused by name."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from runtime.arguments import parse
from runtime.config import changed_fields, flatten, to_yaml
from runtime.errors import UserError


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
    before = to_yaml(Stage(Path("r"), Path("o")))
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
