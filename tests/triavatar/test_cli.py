"""The command line: table of subcommands, dry runs, and one sentence per mistake."""

import dataclasses
import errno
import subprocess
import sys
import time

import pytest
import yaml

from runtime.errors import UserError
from triavatar import cli

STAGES = sorted(cli.STAGES)


def test_every_subcommand_is_there_and_documented():
    for name, stage in cli.STAGES.items():
        config, function = stage.load()
        assert dataclasses.is_dataclass(config), name
        assert callable(function) and function.__doc__, name


def test_every_setting_has_a_meaning_in_the_help(capsys):
    for name in STAGES:
        with pytest.raises(SystemExit):
            cli.run([*name.split(), "--help"])
        lines = capsys.readouterr().out.splitlines()
        rows = [line.strip(" │|") for line in lines]
        for i, row in enumerate(rows):
            if row.startswith("--"):
                # The meaning stands beside the flag or on the next line, before the default.
                text = " ".join(rows[i : i + 2]).split("  ", 1)[-1]
                assert not text.startswith(("(default", "(required")), f"{name}: {row}"


def test_help_is_quick_and_lists_the_subcommands():
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "triavatar", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - start < 2
    assert all(name in done.stdout for name in STAGES)


def test_help_imports_no_stage():
    code = "import sys, triavatar.cli as c; c.run(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_dry_run_prints_the_resolved_settings(capsys, tmp_path):
    arguments = ["--triplanes", "t", "--root", "r", "--output_dir", str(tmp_path / "o")]
    assert cli.main(["evaluate", *arguments, "--dry-run"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["views"] == "test" and shown["march"]["steps"] == 1024
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit-decodr"], "did you mean fit-decoder?"),
        (["studio", "rendr"], "did you mean studio render?"),
        (["evaluate", "--rot", "x"], "did you mean --root?"),
        (["evaluate"], "--triplanes, --root, --output_dir"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and words in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (UserError("no such subject."), 2, "no such subject."),
        (KeyboardInterrupt(), 130, "resumes"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 2, "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "no permission"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 2, "no permission"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"), 2, "/x"),
    ],
)
def test_what_becomes_of_errors(raised, status, words, monkeypatch, capsys):
    def fail(arguments):
        raise raised

    monkeypatch.setattr(cli, "run", fail)
    assert cli.main([]) == status
    err = capsys.readouterr().err
    assert words in err and len(err.strip().splitlines()) == 1


def test_faults_of_the_program_keep_their_traceback(monkeypatch):
    def fail(arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main([])
