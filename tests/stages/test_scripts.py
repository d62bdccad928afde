"""The shell scripts: short, POSIX, from any folder, and what the README says exists."""

import os
import re
import shlex
import subprocess

import pytest
import yaml

from triavatar import cli

# Script → flags it needs.
STAGE_SCRIPTS = {
    "fit_stage1.sh": "--root r --output_dir o",
    "fit_stage2.sh": "--root r --output_dir o --decoder d",
    "encode_multiscale_feature.sh": "--root r --output_dir o --vae v",
    "base_train.sh": "--output_dir o --triplanes t --features f",
    "upsample_train.sh": "--root r --output_dir o --triplanes t --features f",
    "base_sample.sh": "--output_dir o --model m --features f --triplanes t",
    "upsample_sample.sh": "--output_dir o --model m --features f --triplanes t",
}


def sh(script, *arguments, cwd, **environment):
    import sys

    venv = os.path.dirname(os.path.dirname(sys.executable))
    return subprocess.run(
        ["sh", str(script), *arguments],
        cwd=cwd,
        env={**os.environ, "VIRTUAL_ENV": venv, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", STAGE_SCRIPTS)
def test_every_script_runs_a_command_that_parses(name, project, capsys):
    flags = [*shlex.split(STAGE_SCRIPTS[name]), "--dry-run"]
    flags += ["--batch_size" if name == "encode_multiscale_feature.sh" else "--seed", "17"]
    stage = arguments_of((project / "scripts" / name).read_text(), project / "configs" / "debug")
    assert cli.main([*stage, *flags]) == 0
    assert 17 in yaml.safe_load(capsys.readouterr().out).values()


def test_dry_run_from_another_folder_passes_arguments_on(project, tmp_path):
    script = project / "scripts" / "fit_stage1.sh"
    flags = [*shlex.split(STAGE_SCRIPTS[script.name]), "--seed", "17", "--dry-run"]
    done = sh(script, *flags, cwd=tmp_path, SCALE="debug")
    assert done.returncode == 0, done.stderr
    assert 17 in yaml.safe_load(done.stdout).values()
    assert list(tmp_path.iterdir()) == []
    done = sh(script, "--dry-run", "--rot", "r", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: unknown flag --rot")


@pytest.mark.parametrize("scale", ["debug", "small", "paper"])
def test_every_scale_has_every_configuration(scale, project, tmp_path):
    """Each file names only settings that exist, for the stage whose script reads it."""
    read_by = {
        "fit_decoder": "fit-decoder",
        "study_forgetting": "study forgetting",
        "fit_triplanes": "fit-triplanes",
        "vae": "train-vae",
        "features": "encode-features",
        "base": "train-base",
        "upsampler": "train-upsampler",
        "sample_base": "sample-base",
        "sample_upsampler": "sample-upsampler",
        "generate": "generate",
        "evaluate": "evaluate",
        "render": "render",
    }
    required = {
        "train-vae": "--root r --output_dir o",
        "encode-features": "--root r --output_dir o --vae v",
        "fit-decoder": "--root r --output_dir o",
        "study forgetting": "--root r --output_dir o",
        "fit-triplanes": "--root r --output_dir o --decoder d",
        "train-base": "--output_dir o --triplanes t --features f",
        "train-upsampler": "--root r --output_dir o --triplanes t --features f",
        "sample-base": "--output_dir o --model m --features f --triplanes t",
        "sample-upsampler": "--output_dir o --model m --features f --triplanes t",
        "generate": "--vae v --base b --upsampler u --decoder d --output_dir o --root r",
        "evaluate": "--triplanes t --root r --output_dir o",
        "render": "--triplane t --output_dir o",
    }
    folder = project / "configs" / scale
    for file, stage in read_by.items():
        config = ["--config", str(folder / f"{file}.yaml"), *shlex.split(required[stage])]
        assert cli.main([*stage.split(), *config, "--dry-run"]) == 0, f"{scale}/{file}"


def test_launch_counts_processes(project, tmp_path):
    """NGPU and NNODES become accelerate's process counts; one process needs no rendezvous."""
    flags = [*shlex.split(STAGE_SCRIPTS["base_train.sh"]), "--seed", "17", "--dry-run"]
    script = project / "scripts" / "base_train.sh"
    one = sh(script, *flags, cwd=tmp_path)
    alone = one.stderr
    assert one.returncode == 0 and 17 in yaml.safe_load(one.stdout).values()
    assert "--num_processes 1 " in alone and "--multi_gpu" not in alone
    many = sh(
        script,
        *flags,
        cwd=tmp_path,
        NGPU="8",
        NNODES="2",
        NODE_RANK="1",
        MASTER_ADDR="10.0.0.1",
        MASTER_PORT="29501",
    ).stderr
    for words in (
        "--num_processes 16 ",
        "--num_machines 2 ",
        "--multi_gpu",
        "--machine_rank 1 ",
        "--main_process_ip 10.0.0.1",
        "--main_process_port 29501",
    ):
        assert words in many


DEMOS = {"demo.sh": 4, "train_demo.sh": 10}
"""Script → stages it runs, at least."""


@pytest.mark.parametrize("demo", DEMOS)
def test_unknown_scale_and_demo_flag(demo, project, tmp_path):
    done = sh(project / "scripts" / "fit_stage1.sh", cwd=tmp_path, SCALE="huge")
    assert done.returncode == 2 and "huge" in done.stderr
    done = sh(project / "scripts" / demo, "--rot", cwd=tmp_path)
    assert done.returncode == 2 and "--rot" in done.stderr


def arguments_of(script, scale_folder) -> list[str]:
    """What a stage script passes to the command line before its own arguments."""
    found = re.search(r"(?:triavatar|launch) ([a-z-]+) --config \"\$configs/(\w+)\.yaml\"", script)
    assert found, script
    return [found[1], "--config", str(scale_folder / f"{found[2]}.yaml")]


@pytest.mark.parametrize("demo", DEMOS)
def test_demo_dry_run_names_commands_that_parse(demo, project, tmp_path):
    done = sh(project / "scripts" / demo, "--dry-run", "--output_dir", "o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line[3:]) for line in done.stdout.splitlines() if line[:2] == "=="]
    assert len(commands) >= DEMOS[demo]
    for command in commands:
        if command[0] == "sh":
            stage = arguments_of(open(command[1]).read(), project / "configs" / "debug")
            assert cli.main([*stage, *command[2:], "--dry-run"]) == 0, command
        else:
            assert cli.main([*command[1:], "--dry-run"]) == 0, command


def test_scripts_are_short_and_executable(project):
    for script in (project / "scripts").glob("*.sh"):
        text = script.read_text()
        if script.name in STAGE_SCRIPTS:
            assert len(text.splitlines()) < 15
            assert '"$@"' in text and text.startswith("#!/bin/sh\n")
            assert os.access(script, os.X_OK)


PAGES = ["README.md", "CONTRIBUTING.md", "data/README.md", "benchmarks/README.md"]
PAGES += [f"docs/{name}.md" for name in ("training", "own-data", "formats", "renderer", "results")]
PAGES += [f"docs/{name}.md" for name in ("troubleshooting", "citing", "export", "gpu")]


@pytest.mark.parametrize("page", PAGES)
def test_pages_name_what_exists(page, project):
    text = (project / page).read_text()
    for script in set(re.findall(r"scripts/(\w+\.sh)", text)):
        assert (project / "scripts" / script).is_file(), script
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in link:
            assert (project / page).parent.joinpath(link).exists(), link
    for words in re.findall(r"`triavatar ([a-z][^`]*)`", text):
        name, rest = cli.find_stage(shlex.split(words))
        config, _ = cli.STAGES[name].load()
        known = {*config.__dataclass_fields__, "config", "scale", "dry_run", "help"}
        for flag in [word[2:] for word in rest if word.startswith("--")]:
            assert flag.split(".")[0].replace("-", "_") in known, words


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_pages_parse(page, project, monkeypatch):
    """Every command in a block of shell lines is one that the command line takes."""
    monkeypatch.chdir(project)
    text = (project / page).read_text()
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["triavatar"]:
                assert cli.main([*words[1:], "--dry-run"]) == 0, line


def test_the_readme_is_short(project):
    assert len((project / "README.md").read_text().splitlines()) <= 150


def test_training_mini_runs_commands_that_exist(project, tmp_path):
    script = project / "scripts" / "train_mini.sh"
    done = sh(script, "--rot", cwd=tmp_path)
    assert done.returncode == 2 and "--people" in done.stderr
    done = sh(script, "--dry-run", "--people", "120", "--output_dir", "o", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line[3:] for line in done.stdout.splitlines() if line.startswith("== triavatar")]
    assert len(lines) >= 5 and "--n_subjects 120" in lines[0]
    for line in lines:
        assert cli.main([*shlex.split(line)[1:], "--dry-run"]) == 0, line
    assert list(tmp_path.iterdir()) == []
