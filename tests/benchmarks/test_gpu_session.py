"""The half hour on a GPU: commands that exist, steps that end in time, models small enough."""

import os
import re
import shlex
import subprocess
import time

import pytest
import torch

from runtime.formats.settings_files import load_yaml
from triavatar import cli

# An interpreter that writes down what it is asked to run; a device's tools that do nothing.
STUB = """#!/bin/sh
line=$(for word in "$@"; do
    printf '%s' "$word" | tr "'\\n" "  " | sed "s/.*/'&' /" | tr -d '\\n'
done)
printf '%s\\n' "$line" >>"$NOTES"
case "$*" in
*--collect-only*) echo "tests/a.py::test_march[1]"; echo "tests/a.py::test_composite[0.0]" ;;
-c*) echo 3 ;;
*$FAILING*) exit 1 ;;
esac
"""
TOOLS = {
    "nproc": "#!/bin/sh\necho 16\n",
    "nvidia-smi": "#!/bin/sh\n",
    "compute-sanitizer": '#!/bin/sh\nshift 4\nexec "$@"\n',
}


class Session:
    """Calls of the script with the stub for an interpreter."""

    def __init__(self, project, folder):
        self.project, self.folder = project, folder
        (folder / "bin").mkdir()
        for name, text in {"python": STUB, **TOOLS}.items():
            path = folder / "bin" / name
            path.write_text(text)
            path.chmod(0o755)
        (folder / "assets").mkdir()

    def call(self, number, **environment):
        """One call; what it printed and the commands it ran."""
        notes = self.folder / f"notes{number}-{time.monotonic_ns()}"
        environment = {
            **os.environ,
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "NOTES": str(notes),
            "FAILING": "nothing",
            "PYTHON": str(self.folder / "bin" / "python"),
            "WORK": str(self.folder / "work"),
            "OUT": str(self.folder / f"out{number}"),
            "ASSETS": str(self.folder / "assets"),
            "WHEELS": "",
            "REHEARSE": "",
        } | environment
        script = self.project / "benchmarks" / "gpu_session.sh"
        done = subprocess.run(
            ["sh", script, str(number)], env=environment, capture_output=True, text=True
        )
        lines = notes.read_text().splitlines() if notes.exists() else []
        return done, [shlex.split(line) for line in lines]

    def all_calls(self, **environment):
        """The four calls; the commands they ran."""
        commands = []
        for number in (1, 2, 3, 4):
            done, ran = self.call(number, **environment)
            assert done.returncode == 0, done.stdout + done.stderr
            commands += ran
            if number == 2:
                manifest = self.folder / "work" / "stage2" / "manifest.json"
                manifest.parent.mkdir()
                manifest.touch()
        return commands


@pytest.fixture
def session(project, tmp_path):
    return Session(project, tmp_path)


@pytest.mark.parametrize("rehearse", ["", "1"])
def test_every_command_parses(session, project, rehearse, monkeypatch):
    commands = session.all_calls(REHEARSE=rehearse)
    monkeypatch.chdir(project)
    stages = set()
    for words in commands:
        if words[:2] == ["-m", "triavatar"]:
            stages.add(words[2])
            assert cli.main([*words[2:], "--dry-run"]) == 0, words
        elif words[0].endswith(".py"):
            assert (project / words[0]).is_file(), words
            known = re.findall(r'"(--\w+)"', (project / words[0]).read_text())
            assert {word for word in words[1:] if word.startswith("--")} <= set(known), words
        elif words[:2] == ["-m", "pytest"]:
            for word in words[2:]:
                if word.startswith("tests/"):
                    assert (project / word.partition("::")[0]).is_file(), words
    assert {"studio", "train-vae", "encode-features", "fit-decoder", "fit-triplanes"} <= stages
    assert {"train-likeness", "train-base", "train-upsampler", "bench"} <= stages


def test_what_is_done_is_not_done_again_and_failures_are_named(session):
    done, first = session.call(2, FAILING="train-vae")
    assert done.returncode == 1 and "failed: train-vae" in done.stdout
    done, again = session.call(2)
    assert done.returncode == 1
    # Models are brought in every call, for a fresh folder of results.
    assert len(again) < len(first)
    assert all("split" in words or words[0] == "-c" for words in again)


def test_later_calls_need_the_earlier_ones(session):
    done, _ = session.call(3)
    assert done.returncode == 2 and "has not done call 2" in done.stderr
    done, _ = session.call(5)
    assert done.returncode == 2 and "no call 5" in done.stderr


def test_too_much_to_come_back_is_an_error(session):
    out = session.folder / "out2"
    out.mkdir()
    for number in range(8):
        (out / f"old.{number}").touch()
    done, _ = session.call(2)
    assert done.returncode == 4 and "9 files" in done.stderr


def test_a_step_that_takes_too_long_is_left_for_the_next_call(project, tmp_path):
    (tmp_path / "work" / "done").mkdir(parents=True)
    (tmp_path / "work" / "logs").mkdir()
    text = f"""
rehearse= patience=1 work={tmp_path}/work end=$(($(date +%s) + 300))
. {project}/benchmarks/gpu/steps.sh
step slow 1 sleep 60
step quick 5 true
step wrong 5 false
"""
    began = time.monotonic()
    subprocess.run(["sh", "-c", text], check=True)
    assert time.monotonic() - began < 40
    done = {path.name: path.read_text().strip() for path in (tmp_path / "work/done").iterdir()}
    assert done == {"quick": "0", "wrong": "1"}


def test_patches_can_be_cut_from_the_pictures(project):
    size = load_yaml(project / "configs" / "mini" / "studio.yaml")["size"]
    render = load_yaml(project / "benchmarks" / "gpu" / "upsampler.yaml")["render"]
    assert size // max(render["downscales"]) >= render["patch_size"]
    assert sum(render["downscale_probabilities"]) == 1


def test_models_come_back_in_few_pieces(project):
    """The VAE in one piece of fp32, beside the others of its call; the networks as halves."""
    from diffusers import AutoencoderKL

    from diffusion.conditioning.encode_features import feature_manifest
    from diffusion.conditioning.feature_set import feature_shapes
    from diffusion.conditioning.features import PortraitEncoder
    from diffusion.training.train_base import BaseTraining, TrainBaseConfig
    from diffusion.training.train_upsampler import TrainUpsamplerConfig, UpsamplerTraining
    from diffusion.training.train_vae import TrainVaeConfig, build_vae
    from runtime.arguments import parse

    def settings(kind, part, *needed):
        file = str(project / "benchmarks" / "gpu" / f"{part}.yaml")
        return parse(kind, ["--config", file, *needed, "--output_dir", "o"], part)

    config = settings(TrainVaeConfig, "vae", "--root", "r")
    vae = build_vae(config)
    assert isinstance(vae, AutoencoderKL)
    encoder = PortraitEncoder(vae, config.image_size)
    blank = torch.ones(1, 3, config.image_size, config.image_size)
    shapes = feature_shapes(feature_manifest(encoder, encoder.encode(blank)))
    sizes = {"vae": sum(p.numel() for p in vae.parameters())}
    kinds = {"base": (BaseTraining, TrainBaseConfig)}
    kinds["upsampler"] = (UpsamplerTraining, TrainUpsamplerConfig)
    for part, (training, kind) in kinds.items():
        needed = ["--triplanes", "t", "--features", "f", "--root", "r"]
        stand_in = training.__new__(training)
        stand_in.config = settings(kind, part, *needed)
        given = shapes | {"plane_channels": 16, "portrait_window": (-1.0, -1.0, 1.0, 1.0)}
        with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
            patch.setattr(training, "model_shapes", given)
            sizes[part] = sum(p.numel() for p in stand_in.build_model().parameters())
    assert 1e6 < sizes.pop("vae") < 15 * 2**20 / 4
    assert all(1e6 < count < 24e6 for count in sizes.values()), sizes
