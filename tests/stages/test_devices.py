"""Every trainer's first steps on a GPU against the same steps on the CPU.

Random numbers are drawn on the CPU wherever a stage runs, so its losses may differ by rounding
alone. The same comparison of the CPU with itself runs everywhere.
"""

import json
import math
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from tests.stages.conftest import Chain

STAGES = (
    "train-vae",
    "encode-features",
    "fit-decoder",
    "fit-triplanes",
    "train-base",
    "train-upsampler",
)
# A decoder that the CUDA kernels cover.
MORE = {
    "fit-decoder": ["--channels", "8", "--color_channels", "4", "--hidden", "32", "--log_every"]
    + ["1", "--rounds", "1"],
    "fit-triplanes": ["--log_every", "1"],
    "train-base": ["--sample_every", "0"],
    "train-upsampler": ["--sample_every", "0"],
}
TOLERANCE = 0.02
DEVICES = [pytest.param("cuda", marks=pytest.mark.cuda), "cpu"]


@pytest.fixture(scope="module")
def on_cpu(world: Chain, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The trainers run once on the CPU; each device's run of a stage reads what these left."""
    chain = replace(world, out=tmp_path_factory.mktemp("on_cpu"))
    for stage in STAGES:
        assert chain.run(stage, chain.out / stage, *MORE.get(stage, [])) == 0, stage
    return chain


def losses(folder) -> list[float]:
    """What a run logged as its loss, line by line."""
    rows = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    return [next(row[key] for key in ("loss", "psnr") if key in row) for row in rows]


def difference(first, second) -> float:
    """Largest difference of two runs' losses, over the largest; infinite if any is missing."""
    a, b = losses(first), losses(second)
    if not a or len(a) != len(b) or not all(map(math.isfinite, [*a, *b])):
        return math.inf
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) / max(map(abs, a))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "encode-features"])
def test_first_steps_are_those_of_the_cpu(on_cpu, stage, device, tmp_path):
    again = tmp_path / stage
    assert on_cpu.run(stage, again, *MORE.get(stage, []), "--device", device) == 0
    assert difference(on_cpu.out / stage, again) < TOLERANCE


@pytest.mark.parametrize("device", DEVICES)
def test_features_are_those_of_the_cpu(on_cpu, device, tmp_path):
    assert on_cpu.run("encode-features", tmp_path / "features", "--device", device) == 0
    expected = sorted((on_cpu.out / "encode-features" / "features").glob("*.safetensors"))
    assert expected
    for path in expected:
        found = load_file(tmp_path / "features" / "features" / path.name)
        for name, want in load_file(path).items():
            want, have = want.float(), found[name].float()
            assert (want - have).norm() < TOLERANCE * want.norm()


def test_other_losses_would_be_noticed(on_cpu, tmp_path):
    assert on_cpu.run("train-vae", tmp_path / "vae", "--learning_rate", "0.05") == 0
    assert difference(on_cpu.out / "train-vae", tmp_path / "vae") > TOLERANCE
