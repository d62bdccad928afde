"""The loop: exact resumption after SIGKILL, any number of processes, schedule, errors."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from captures.multiview import MultiViewSet
from diffusion.conditioning.feature_set import FeatureSet
from diffusion.sampling.model_files import load_pipeline
from diffusion.sampling.pipelines import BaseTriplanePipeline
from diffusion.sampling.solvers import SamplerConfig
from diffusion.training.loop_config import LoopConfig, learning_rate_at
from diffusion.training.train_base import BaseModelConfig, TrainBaseConfig, train_base
from renderer.fitted_set import FittedSet
from renderer.triplane_sets import PackConfig, pack
from runtime.errors import UserError
from runtime.formats.tensor_files import load_tensors, save_tensors
from tests.diffusion.tiny import TINY_BASE

STEPS = 6

# Runs train-base from a JSON of arguments; dies where it is told to.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from diffusion.training.train_base import BaseModelConfig, TrainBaseConfig, train_base
from diffusion.training.loop import TrainingLoop
from runtime.runs import RunFolder

arguments = json.loads(sys.argv[1])
where, count = arguments.pop("die"), 0


def die_at(owner, name, when):
    original = getattr(owner, name)

    def wrapped(*values, **named):
        global count
        count += 1
        if count == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*values, **named)

    setattr(owner, name, wrapped)


if where == "step":
    die_at(TrainingLoop, "_optimise", 4)
if where == "commit":
    die_at(RunFolder, "commit_state_dir", 2)
model = BaseModelConfig(**arguments.pop("model"))
names = [k for k in ("output_dir", "triplanes", "features", "root") if k in arguments]
paths = {k: Path(arguments.pop(k)) for k in names}
train_base(TrainBaseConfig(**arguments, **paths, model=model))
"""

MODEL = TINY_BASE | {"feature_patches": (16, 8, 4)}


@pytest.fixture
def settings(tiny_fitted: FittedSet, tiny_features: FeatureSet, tiny_views: MultiViewSet) -> dict:
    return {
        "triplanes": tiny_fitted.folder,
        "features": tiny_features.folder,
        "root": tiny_views.root,
        "plane_size": 8,
        "num_timesteps": 20,
        "learned_variance": True,
        "condition_drop": 0.2,
        "steps": STEPS,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "decay": "cosine",
        "ema_decay": 0.9,
        "log_every": 1,
        "save_every": 2,
        "sample_every": 0,
        "device": "cpu",
    }


def start(settings: dict, folder: Path, die: str | None, **environment: str) -> subprocess.Popen:
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    arguments = {"model": MODEL} | plain | {"output_dir": str(folder), "die": die}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(arguments)],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(settings: dict, folder: Path, **changes) -> Path:
    values = {"model": MODEL, **settings, **changes}
    if isinstance(values["model"], dict):
        values["model"] = BaseModelConfig(**values["model"])
    train_base(TrainBaseConfig(output_dir=folder, **values))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(
        folder / "snapshots" / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    )[0]


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_fitted, tiny_features, tiny_views) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    values = settings.__wrapped__(tiny_fitted, tiny_features, tiny_views)
    return train(values, folder)


@pytest.mark.parametrize("instant", ["step", "commit"])
def test_killed_and_started_again_ends_the_same(
    settings: dict, whole: Path, tmp_path: Path, instant: str
) -> None:
    process = start(settings, tmp_path, instant)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    train(settings, tmp_path)
    assert "resumed at step 2" in (tmp_path / "log.txt").read_text()
    expected, found = weights(whole), weights(tmp_path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert rows(whole) == rows(tmp_path)
    assert [row["step"] for row in rows(whole)] == list(range(1, STEPS + 1))
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"step_00000006", "saved"}


@pytest.mark.slow
def test_killed_while_streaming_mirrored_and_dropped_ends_the_same(
    settings: dict, tiny_fitted: FittedSet, tiny_vae: Path, tmp_path: Path
) -> None:
    """Archives of another place, mirrored people, dropout: killed, it ends with the same bytes."""
    away = tmp_path / "away"
    away.mkdir()
    small = 2 * tiny_fitted.path("s0").stat().st_size / 2**20
    pack(PackConfig(tiny_fitted.folder, tmp_path / "packed", small, away.as_uri()))
    for archive in (tmp_path / "packed").glob("*.tar"):
        archive.rename(away / archive.name)
    streamed = {key: value for key, value in settings.items() if key != "features"}
    streamed |= {"triplanes": tmp_path / "packed", "vae": str(tiny_vae), "mirror": True}
    streamed |= {"image_size": 32, "model": MODEL | {"dropout": 0.1}}
    train(streamed, tmp_path / "whole")
    process = start(streamed, tmp_path / "killed", "step")
    _, errors = process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL, errors
    train(streamed, tmp_path / "killed")
    assert "resumed at step 2" in (tmp_path / "killed" / "log.txt").read_text()
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_two_processes_train_like_one(settings: dict, whole: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        start(
            settings,
            tmp_path,
            None,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
            ACCELERATE_USE_CPU="true",
        )
        for rank in range(2)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    for one, two in zip(rows(whole), rows(tmp_path), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    expected, found = weights(whole), weights(tmp_path)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], atol=2e-4, rtol=1e-2)


def test_micro_batches_train_like_one(settings: dict, whole: Path, tmp_path: Path) -> None:
    train(settings, tmp_path, gradient_accumulation=2)
    for one, two in zip(rows(whole), rows(tmp_path), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    expected, found = weights(whole), weights(tmp_path)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], atol=2e-4, rtol=1e-2)


def test_layout_and_place_change_nothing(settings: dict, whole: Path, tmp_path: Path) -> None:
    """Channels last (of weights for each plane too) and averages on the CPU; then resumed."""
    released = BaseModelConfig(**MODEL, plane_convs="released")
    plain = train(settings, tmp_path / "plain", model=released, steps=4)
    lean = tmp_path / "lean"
    train(settings, lean, model=released, steps=2, channels_last=True, ema_on_cpu=True)
    train(settings, lean, model=released, steps=4, channels_last=True, ema_on_cpu=True)
    expected, found = weights(plain), weights(lean)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], atol=2e-4, rtol=1e-2)
    with pytest.raises(UserError, match="learning_rate"):
        train(settings, lean, model=released, learning_rate=1.0)


@pytest.mark.slow
def test_a_compiled_model_trains_alike(
    settings: dict, whole: Path, tmp_path: Path, monkeypatch
) -> None:
    """The graph is captured and run without a compiler of the machine."""
    compile_model = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compile_model(self, backend="aot_eager")
    )
    train(settings, tmp_path, compile=True, steps=2)
    found = rows(tmp_path)
    assert found
    for one, two in zip(rows(whole)[: len(found)], found, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)


def test_losses_fall_and_the_pipeline_loads_the_model(whole: Path, settings: dict) -> None:
    pipeline = BaseTriplanePipeline.from_pretrained(whole / "snapshots" / "model")
    features = FeatureSet.open(settings["features"])
    planes = pipeline(features.load("s0"), sampler=SamplerConfig(5))
    assert planes.shape == (1, 3, 8, 8, 8) and float(planes.abs().max()) <= 1
    data = json.loads((whole / "snapshots" / "model" / "training_data.json").read_text())
    assert data["subjects"] == 4 and data["vae_hash"] == features.manifest["vae_hash"]
    assert all({"loss", "mse", "vlb", "learning_rate"} <= row.keys() for row in rows(whole))


def test_a_diffusion_that_names_no_schedule_is_refused(whole: Path, tmp_path: Path) -> None:
    """A regression has none; a diffusion without one would be taken for a regression."""
    folder = tmp_path / "model"
    shutil.copytree(whole / "snapshots" / "model", folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": [None, None]}))
    with pytest.raises(UserError, match="does not name its scheduler"):
        load_pipeline(BaseTriplanePipeline, folder, torch.device("cpu"))


def test_saved_weights_are_the_average(whole: Path) -> None:
    """EMA of Adam-sized steps from the same start differs from the last weights."""
    state = whole / "state" / f"step_{STEPS:08d}"
    last, _ = load_tensors(state / "model.safetensors")
    ema = torch.load(state / "ema.pt", weights_only=True)
    saved = BaseTriplanePipeline.from_pretrained(whole / "snapshots" / "model").unet
    names = [name for name, _ in saved.named_parameters()]
    for (name, value), average in zip(saved.named_parameters(), ema["shadow_params"], strict=True):
        assert torch.equal(value, average), name
    assert any(not torch.equal(saved.get_parameter(name), last[name]) for name in names)


def test_a_finished_run_stays_and_can_be_extended(settings: dict, whole: Path) -> None:
    before = (whole / "stats.jsonl").read_text()
    train(settings, whole)
    assert (whole / "stats.jsonl").read_text() == before
    assert "already finished at step 6" in (whole / "log.txt").read_text()
    with pytest.raises(UserError, match="learning_rate"):
        train(settings, whole, learning_rate=2e-3)


def test_stopped_by_the_clock_and_started_again_ends_the_same(
    settings: dict, whole: Path, tmp_path: Path
) -> None:
    train(settings, tmp_path, minutes=1e-9)
    assert [row["step"] for row in rows(tmp_path)] == [1]
    assert "stopped at step 1 by the clock" in (tmp_path / "log.txt").read_text()
    assert (tmp_path / "snapshots" / "model").is_dir()
    train(settings, tmp_path, minutes=600.0)
    expected, found = weights(whole), weights(tmp_path)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert rows(whole) == rows(tmp_path)


def test_a_run_begins_with_another_ones_weights(
    settings: dict, whole: Path, tmp_path: Path
) -> None:
    warm = train(settings, tmp_path / "warm", start_from=whole, steps=1, learning_rate=1e-12)
    cold = train(settings, tmp_path / "cold", steps=1, learning_rate=1e-12)
    expected = weights(whole)
    assert all(torch.allclose(expected[key], value) for key, value in weights(warm).items())
    assert not all(torch.allclose(expected[key], value) for key, value in weights(cold).items())
    with pytest.raises(UserError, match="another architecture than the settings under model"):
        train(
            settings,
            tmp_path / "other",
            start_from=whole,
            model=BaseModelConfig(**MODEL | {"width": 16}),
        )


def test_learning_rate() -> None:
    config = LoopConfig(
        output_dir=Path("x"), steps=12, warmup_steps=4, learning_rate=0.1, decay="cosine"
    )
    rates = [learning_rate_at(config, step) for step in range(13)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[4] == pytest.approx(0.1) and rates[8] == pytest.approx(0.05)
    assert rates[12] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 5, "gradient_accumulation": 2}, "batch_size 5 can't be split"),
        ({"steps": 0}, "steps is 0"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"plane_size": 7}, "model"),
        ({"device": "cuda:7"}, "cuda:7"),
        ({"trackers": ("nothing",)}, "nothing"),
        ({"learning_rate": 1e30, "steps": 30, "clip_gradient": 0.0}, "no longer finite"),
    ],
)
def test_bad_settings_give_one_sentence(
    settings: dict, tmp_path: Path, changes: dict, words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        train(settings, tmp_path, **changes)
    assert "\n" not in str(error.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def flip_a_bit(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    name, extra = struct.unpack_from("<HH", content, largest.header_offset + 26)
    content[largest.header_offset + 30 + name + extra] ^= 1
    path.write_bytes(content)


def round_weights(path: Path) -> None:
    tensors = load_tensors(path)[0]
    save_tensors(path, tensors | {name: tensors[name].long() for name in sorted(tensors)[:1]})


def round_moments(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["state"][0]["exp_avg"] = state["state"][0]["exp_avg"].long()
    torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut),
        ("model.safetensors", round_weights),
        ("ema.pt", flip_a_bit),
        ("optimizer.bin", flip_a_bit),
        ("optimizer.bin", round_moments),
        ("random_states_0.pkl", Path.unlink),
        ("random_states_0.pkl", cut),
    ],
)
def test_a_damaged_state_is_named(
    settings: dict, whole: Path, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    damage(run / "state" / "step_00000006" / name)
    with pytest.raises(UserError, match="step_00000006.*(damaged|does not exist|is truncated)"):
        train(settings, run, steps=STEPS + 1)
