"""``triavatar triplanes stats``: are these triplanes what a diffusion model can learn?

Legend: N subjects, C channels, H W plane size.

Range, smoothness and how alike subjects are, by plane and channel; with a multi-view set also
what small errors of the planes cost in dB on held-out views.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from captures.multiview import MultiViewSet
from captures.selection import SetConvention
from fitting.subject_fit import held_out_quality
from fitting.tolerance import perturbations, rescale
from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings
from renderer.triplane import PLANE_ORDER
from runtime.config import own_first
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import write_json, write_text
from runtime.progress import progress


@own_first
@dataclass
class TriplaneStatsConfig(SetConvention):
    """Measure a triplane set."""

    triplanes: Path
    """Triplane folder."""
    root: Path | None = None
    """Multi-view set of the same subjects; with it, held-out views tell what errors cost."""
    subjects: int = 64
    """Subjects measured, the first of the set; 0 for all."""
    rendered: int = 8
    """Of them, subjects rendered with errors in their planes."""
    views: int = 4
    """Held-out views of each that are rendered."""
    image_size: int | None = None
    """Resize pictures to this many pixels; their own size without it."""
    march: RenderSettings = field(default_factory=RenderSettings)
    """How rays are marched."""
    seed: int = 0
    """Of the noise."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""
    json: Path | None = None
    """File for all figures, by plane and channel too."""
    table: Path | None = None
    """File for the Markdown tables; they are printed in any case."""


def triplane_stats(config: TriplaneStatsConfig) -> None:
    """Measure and report; see :class:`TriplaneStatsConfig`.

    Raises:
        UserError: no triplanes, or none of them has held-out views in the set.
    """
    fitted = FittedSet.open(config.triplanes)
    names = fitted.names[: config.subjects or None]
    if not names:
        raise UserError(f"{fitted.folder} holds no triplanes")
    content = {
        "triplanes": str(fitted.folder),
        "shape": list(fitted.shape),
        "dtype": fitted.manifest["dtype"],
        "mib_per_subject": fitted.path(names[0]).stat().st_size / 2**20,
        "subjects": names,
        **measure(fitted, names),
    }
    if config.root is not None:
        content["errors"] = _errors(config, fitted, names)
    tables = markdown(content)
    print(tables)
    if config.json is not None:
        write_json(config.json, content)
    if config.table is not None:
        write_text(config.table, tables)


def measure(fitted: FittedSet, names: list[str]) -> dict:
    """Range, smoothness and statistics, read one triplane at a time (twice).

    Returns:
        ``range``: over all values. ``smoothness``: ``tv`` (mean squared difference of neighbours,
        what fitting penalises), ``tv_relative`` (by the variance of values; 2 is white noise) and
        ``fine_share`` (of the variance, what H → H/4 → H loses). ``channels``: per plane and
        channel [3][C]. ``alike``: ``common_share`` of the variance that is the mean triplane's,
        ``std_spread`` (largest over smallest standard deviation of a subject).
    """
    total, squares = torch.zeros(fitted.shape), torch.zeros(fitted.shape)
    low, high, at_limit, tv, fine, stds, means = [], [], [], [], [], [], []
    for name in progress(names, desc="triplanes", unit="subject"):
        planes = fitted.load(name)
        total += planes
        squares += planes.square()
        low.append(float(planes.min()))
        high.append(float(planes.max()))
        at_limit.append(float((planes.abs() > 0.99).float().mean()))
        tv.append(_variation(planes))
        fine.append(float((planes - rescale(planes, 4)).square().mean()))
        stds.append(float(planes.std()))
        means.append(planes.mean(dim=(2, 3)))
    count = len(names)
    mean = total / count
    channel_mean = mean.mean(dim=(2, 3))
    spread = (squares / count).mean(dim=(2, 3)) - channel_mean.square()
    # Around each channel's own mean: what differs from place to place and subject to subject.
    common = (mean - channel_mean[..., None, None]).square().mean(dim=(2, 3))
    variance = float(spread.mean())
    return {
        "range": {
            "min": min(low),
            "max": max(high),
            "at_limit": statistics.mean(at_limit),
            "std": statistics.mean(stds),
        },
        "smoothness": {
            "tv": statistics.mean(tv),
            "tv_relative": statistics.mean(tv) / max(variance, 1e-12),
            "fine_share": statistics.mean(fine) / max(variance, 1e-12),
        },
        "alike": {
            "common_share": float(common.mean()) / max(variance, 1e-12),
            "std_spread": max(stds) / max(min(stds), 1e-12),
            "std_by_subject": dict(zip(names, stds, strict=True)),
        },
        "channels": {
            "mean": channel_mean.tolist(),
            "std": spread.clamp(min=0).sqrt().tolist(),
            "common_share": (common / spread.clamp(min=1e-12)).tolist(),
            "mean_over_subjects_std": torch.stack(means).std(dim=0, unbiased=False).tolist(),
        },
    }


def _variation(planes: Tensor) -> float:
    """Mean squared difference of neighbouring texels, along both sides."""
    across = planes.diff(dim=-1).square().mean()
    down = planes.diff(dim=-2).square().mean()
    return float((across + down) / 2)


def _errors(config: TriplaneStatsConfig, fitted: FittedSet, names: list[str]) -> dict:
    """PSNR on held-out views of clean planes and of planes with errors, mean over subjects."""
    assert config.root is not None
    data = MultiViewSet(config.root, config.convention)
    chosen = [name for name in names if name in set(data.names) and data.split_views("test", name)]
    chosen = chosen[: config.rendered]
    if not chosen:
        raise UserError(f"{config.root} has no held-out views of the subjects of {fitted.folder}")
    device = select_device(config.device)
    decoder = fitted.decoder()
    torch.nn.Module.to(decoder, device)
    found: dict[str, dict[str, float]] = {}
    for name in progress(chosen, desc="held-out views", unit="subject"):
        frames = data.split_views("test", name)[: config.views]
        views = data.load(name, frames, config.image_size)
        planes = fitted.load(name).to(device)
        kinds = {"clean": lambda planes: planes} | perturbations(name, config.seed)
        found[name] = {
            kind: held_out_quality(change(planes), decoder, views, config.march).mean_psnr
            for kind, change in kinds.items()
        }
    kinds = list(found[chosen[0]])
    mean = {kind: statistics.mean(row[kind] for row in found.values()) for kind in kinds}
    return {"mean": mean, "subjects": found}


def markdown(content: dict) -> str:
    """The figures as tables."""
    shape = "×".join(map(str, content["shape"]))
    limits, smooth, alike = content["range"], content["smoothness"], content["alike"]
    lines = [
        f"{len(content['subjects'])} triplanes {shape} of {content['triplanes']}, "
        f"{content['dtype']}, {content['mib_per_subject']:.2f} MiB each",
        "",
        "| figure | value |",
        "|---|---|",
        f"| range | {limits['min']:+.3f} to {limits['max']:+.3f} |",
        f"| values beyond ±0.99 | {100 * limits['at_limit']:.2f} % |",
        f"| standard deviation (largest / smallest subject) | {limits['std']:.4f} "
        f"({alike['std_spread']:.2f}×) |",
        f"| total variation (by the variance; 2 is noise) | {smooth['tv']:.2e} "
        f"({smooth['tv_relative']:.3f}) |",
        f"| share of the variance that H → H/4 → H loses | {100 * smooth['fine_share']:.1f} % |",
        f"| share of the variance that all subjects have in common | "
        f"{100 * alike['common_share']:.1f} % |",
        "",
        "| plane | mean of its channels | standard deviation of its channels | in common |",
        "|---|---|---|---|",
    ]
    for index, plane in enumerate(PLANE_ORDER):
        rows = {key: content["channels"][key][index] for key in ("mean", "std", "common_share")}
        shared = 100 * statistics.mean(rows["common_share"])
        lines.append(
            f"| {plane} | {min(rows['mean']):+.3f} … {max(rows['mean']):+.3f} | "
            f"{min(rows['std']):.3f} … {max(rows['std']):.3f} | {shared:.0f} % |"
        )
    if "errors" in content:
        mean = content["errors"]["mean"]
        count = len(content["errors"]["subjects"])
        lines += ["", f"Held-out views, {count} subjects:", "", "| planes | PSNR | lost |"]
        lines.append("|---|---|---|")
        for kind, value in mean.items():
            lost = "" if kind == "clean" else f"{mean['clean'] - value:.2f} dB"
            lines.append(f"| {kind} | {value:.2f} dB | {lost} |")
    return "\n".join(lines) + "\n"
