"""`bench train` on tiny data, and its model of known cards by hand."""

import json
from pathlib import Path

from diffusion.training.memory import StepMemory
from diffusion.training.train_upsampler import RenderLossConfig, UpsamplerModelConfig
from studies.bench.bench_train import (
    BenchTrainConfig,
    BenchUpsamplerConfig,
    bench_train,
    bench_upsampler,
)
from studies.bench.cards import BASE, UPSAMPLER, modelled_table
from tests.diffusion.tiny import tiny_base


def test_feeding_and_learning_are_measured_apart(
    tiny_fitted, tiny_features, tiny_views, tmp_path: Path, capsys
) -> None:
    bench_train(
        BenchTrainConfig(
            output_dir=tmp_path,
            triplanes=tiny_fitted.folder,
            features=tiny_features.folder,
            root=tiny_views.root,
            plane_size=8,
            model=tiny_base(),
            batch_size=4,
            gradient_accumulation=2,
            measured_steps=2,
            modelled=False,
            device="cpu",
        )
    )
    found = json.loads((tmp_path / "bench.json").read_text())
    rates = [found[name] for name in ("loader alone", "model alone", "both")]
    assert all(row["samples_per_second"] > 0 for row in rates)
    loader, model, both = (row["cpu_seconds_per_sample"] for row in rates)
    assert 0 < loader < model and both > 0.7 * model
    assert found["people"] == 4 and (tmp_path / "bench.md").read_text() in capsys.readouterr().out


def test_the_upsamplers_training_is_measured_alike(
    tiny_fitted, tiny_features, tiny_views, tmp_path: Path
) -> None:
    bench_upsampler(
        BenchUpsamplerConfig(
            output_dir=tmp_path,
            triplanes=tiny_fitted.folder,
            features=tiny_features.folder,
            root=tiny_views.root,
            low_res_size=8,
            plane_size=16,
            model=UpsamplerModelConfig(
                width=8,
                multipliers=(1, 2),
                blocks=(1, 1),
                attention_sizes=(8,),
                head_channels=8,
                latent_patch=4,
                token_width=8,
            ),
            render=RenderLossConfig(
                patch_size=8, downscales=(2,), downscale_probabilities=(1.0,), steps=16, grid=8
            ),
            batch_size=2,
            measured_steps=1,
            modelled=False,
            device="cpu",
        )
    )
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["both"]["samples_per_second"] > 0 and found["parameters"] > 1000
    assert "model alone" in (tmp_path / "bench.md").read_text()


def test_modelled_days_are_operations_over_rate() -> None:
    memories = {
        BASE: StepMemory(8.9, 3.07, 0.71, tflop=1.36),
        UPSAMPLER: StepMemory(8.4, 27.4, 9.1, tflop=18.6),
    }
    lines = modelled_table(memories, 0.3).splitlines()
    assert "not measured" in lines[0] and len(lines) == 4 + 8
    row = next(line for line in lines if "| base | 8 × A100" in line).split("|")
    rate = 8 * 312 * 0.3 / (3 * 1.36)
    assert row[6].strip() == f"{rate:.0f}"
    assert row[7].strip() == f"{96 * 500_000 / rate / 86400:.1f}"
    # Checkpointing computes a forward pass more.
    row = next(line for line in lines if "| upsampler | 8 × V100" in line).split("|")
    assert row[4].strip() == "yes" and row[6].strip() == f"{8 * 125 * 0.3 / (4 * 18.6):.0f}"
