"""``triavatar evaluate``: triplanes against the held-out views of a multi-view set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from captures.cameras import Cameras
from captures.multiview import MultiViewSet, Views
from captures.selection import SubjectSelection
from renderer.fitted_set import FittedSet
from renderer.metrics import Lpips, psnr, ssim
from renderer.render import RenderSettings
from runtime.config import own_first, setting
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import write_json
from runtime.progress import progress
from runtime.version import VERSION
from triavatar.avatar import Avatar
from triavatar.sheets import save_picture

Metric = Callable[[Tensor, Tensor], Tensor]


@own_first
@dataclass(kw_only=True)
class EvaluateConfig(SubjectSelection):
    """Settings of ``triavatar evaluate``."""

    triplanes: Path
    """Triplane folder: output of fit-triplanes, sample-upsampler or generate."""
    root: Path
    """Multi-view set with the true pictures."""
    output_dir: Path
    """Folder for metrics.json and the rendered views."""
    identities: Literal["all", "train", "validation", "test"] = "all"
    """Split of the subjects to measure."""
    views: Literal["test", "validation", "train", "all"] = "test"
    """Split of the views to compare; test views are never trained on."""
    size: int | None = setting(None, at_least=1)
    """Picture size in pixels; as on disk without it."""
    match: bool = True
    """Compare each avatar with every subject: is it closest to its own?"""
    lpips: Literal["auto", "off", "alex", "vgg"] = "auto"
    """Perceptual distance; auto is vgg when its weights are there, and says so when they aren't."""
    clip: str | None = None
    """CLIP model (hub id or folder) for image similarity; none without it."""
    march: RenderSettings = field(default_factory=RenderSettings)
    """How rays are marched."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def finite_psnr(a: Tensor, b: Tensor) -> Tensor:
    """PSNR in dB with 8-bit pictures in mind: equal ones count as 100 dB."""
    return psnr(a, b).clamp(max=100)


def clip_similarity(model_id: str, device: torch.device) -> Metric:
    """Cosine similarity of CLIP image embeddings, [...] for pictures [..., H, W, 3] in 0..1.

    Raises:
        UserError: the model can't be loaded.
    """
    from transformers import CLIPImageProcessor, CLIPModel

    try:
        model = CLIPModel.from_pretrained(model_id).eval()
        torch.nn.Module.to(model, device)
        processor = CLIPImageProcessor.from_pretrained(model_id)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the CLIP model {model_id} can't be loaded ({str(error).splitlines()[0]}); "
            "give --clip a folder with a downloaded model."
        ) from None

    @torch.no_grad()
    def embed(pictures: Tensor) -> Tensor:
        arrays = [(picture * 255).round().byte().cpu().numpy() for picture in pictures]
        pixels = processor(images=arrays, return_tensors="pt")["pixel_values"].to(device)
        pooled = model.vision_model(pixel_values=pixels).pooler_output
        return torch.nn.functional.normalize(model.visual_projection(pooled), dim=-1)

    return lambda a, b: (embed(a) * embed(b)).sum(-1)


def load_metrics(config: EvaluateConfig, device: torch.device) -> tuple[dict[str, Metric], str]:
    """The metrics to compute by name, and a sentence about one that is not there."""
    metrics: dict[str, Metric] = {"psnr": finite_psnr, "ssim": ssim}
    note = ""
    if config.lpips != "off":
        try:
            metrics["lpips"] = Lpips("vgg" if config.lpips == "auto" else config.lpips, device)
        except UserError as error:
            if config.lpips != "auto":
                raise
            note = f"not measured: {error}"
    if config.clip is not None:
        metrics["clip"] = clip_similarity(config.clip, device)
    return metrics, note


def same_cameras(a: Cameras, b: Cameras) -> bool:
    """Return whether two sets of views were taken from the same places."""
    return (
        a.c2w.shape == b.c2w.shape
        and torch.allclose(a.c2w, b.c2w, atol=1e-5)
        and torch.allclose(a.fx, b.fx)
        and (a.width, a.height) == (b.width, b.height)
    )


def _pictures(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).float() / 255


@dataclass
class Match:
    """Each avatar against every subject.

    Attributes:
        subjects: names, the order of the matrix's columns.
        psnr: avatar → PSNR in dB over the held-out views of every subject.
    """

    subjects: list[str]
    psnr: dict[str, list[float]]

    def summary(self, splits: Mapping[str, list[str]]) -> dict[str, Any]:
        """How many avatars are closest to their own subject; as stored in ``metrics.json``."""
        closest = {
            name: self.subjects[int(np.argmax(values))] for name, values in self.psnr.items()
        }
        own = {name for name, found in closest.items() if name == found}
        return {
            "correct": len(own),
            "of": len(closest),
            "by_identity_split": {
                split: {"correct": len(own & set(names)), "of": len(names)}
                for split, names in splits.items()
            },
            "closest": closest,
            "subjects": self.subjects,
            "psnr": self.psnr,
        }


def evaluate_subjects(
    fitted: FittedSet,
    truth: Mapping[str, Views],
    names: list[str],
    metrics: Mapping[str, Metric],
    config: EvaluateConfig,
    device: torch.device,
) -> tuple[dict[str, dict[str, float]], Match]:
    """Render every subject's triplane at its held-out cameras and measure.

    Args:
        fitted: the triplanes.
        truth: true views by subject, of all subjects to match against.
        names: subjects to measure.
        metrics: by name.
        config: settings; rendered views go to ``output_dir/views``.
        device: where to render.

    Returns:
        Metrics by subject (means over views), and the match.
    """
    decoder = fitted.decoder()
    scores: dict[str, dict[str, float]] = {}
    match = Match(list(truth), {})
    for name in progress(names, desc="evaluate", unit="subject"):
        avatar = Avatar(fitted.load(name), decoder, name).to(device)
        views = truth[name]
        rendered = avatar.pictures(views.cameras, settings=config.march)
        for frame, picture in zip(views.frames, rendered, strict=True):
            save_picture(config.output_dir / "views" / name / f"{frame:06d}.png", picture)
        ours, true = _pictures(rendered).to(device), views.composited().to(device)
        scores[name] = {key: float(metric(ours, true).mean()) for key, metric in metrics.items()}
        if not config.match:
            continue
        row = []
        for other in match.subjects:
            there = truth[other]
            if same_cameras(there.cameras, views.cameras):
                seen = ours
            else:
                seen = _pictures(avatar.pictures(there.cameras, settings=config.march))
            row.append(float(finite_psnr(seen.cpu(), there.composited()).mean()))
        match.psnr[name] = row
    return scores, match


def _mean(scores: Mapping[str, Mapping[str, float]], names: list[str]) -> dict[str, float]:
    keys = next(iter(scores.values()))
    return {key: float(np.mean([scores[name][key] for name in names])) for key in keys}


def evaluate(config: EvaluateConfig) -> None:
    """Write ``metrics.json`` and the rendered views.

    Raises:
        UserError: set, triplanes or decoder are missing or damaged; no subject is left.
    """
    device = select_device(config.device)
    fitted = FittedSet.open(config.triplanes)
    dataset = MultiViewSet(config.root, config.convention)
    listed = config.chosen(dataset.split(config.identities), dataset.names)
    names = [name for name in listed if name in set(fitted.names)]
    if not names:
        raise UserError(
            f"{config.triplanes} holds no triplane of the subjects asked for "
            f"(e.g. {listed[0]}); fit or generate them first."
        )
    metrics, lpips_note = load_metrics(config, device)
    compared = dataset.names if config.match else names
    truth = {
        name: dataset.load(name, dataset.split_views(config.views, name), config.size)
        for name in compared
    }
    scores, match = evaluate_subjects(fitted, truth, names, metrics, config, device)
    splits = {
        split: members
        for split in ("train", "validation", "test")
        if (members := [name for name in names if name in set(dataset.split(split))])
    }
    result = {
        "code_version": VERSION,
        "triplanes": str(config.triplanes),
        "root": str(config.root),
        "views": config.views,
        "frames": truth[names[0]].frames,
        "without_triplane": [name for name in listed if name not in set(names)],
        "mean": _mean(scores, names),
        "mean_by_identity_split": {k: _mean(scores, v) for k, v in splits.items()},
        "subjects": scores,
        "lpips": lpips_note or config.lpips,
        "match": match.summary(splits) if config.match else None,
    }
    write_json(config.output_dir / "metrics.json", result)
    print_result(result, config.output_dir)


def print_result(result: dict[str, Any], folder: Path) -> None:
    """Print the means and where the details lie."""
    for label, values in [("all", result["mean"]), *result["mean_by_identity_split"].items()]:
        figures = ", ".join(f"{key} {value:.3f}" for key, value in values.items())
        print(f"{label:>10} subjects: {figures}")
    if result["match"] is not None:
        for split, counts in result["match"]["by_identity_split"].items():
            print(
                f"{split:>10} subjects closest to their own: {counts['correct']} of {counts['of']}"
            )
    if str(result["lpips"]).startswith("not measured"):
        print(f"lpips {result['lpips']}")
    print(f"details: {folder / 'metrics.json'}")
