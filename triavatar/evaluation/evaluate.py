"""``triavatar evaluate``: triplanes against the held-out views of a multi-view set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from captures.multiview import MultiViewSet, Views
from captures.selection import SubjectSelection
from renderer.fitted_set import FittedSet
from renderer.metrics import Lpips
from renderer.render import RenderSettings
from runtime.config import own_first, setting
from runtime.devices import select_device
from runtime.errors import UserError
from runtime.files import write_json
from runtime.progress import progress
from runtime.version import VERSION
from triavatar.avatar import Avatar
from triavatar.evaluation.intervals import interval_scores, mean_scores
from triavatar.evaluation.match import Match, same_cameras
from triavatar.evaluation.measures import Measures, error_map, finite_psnr, similarity
from triavatar.evaluation.networks import (
    FACE_FILE,
    INCEPTION,
    INCEPTION_FILE,
    clip_embedding,
    face_identity,
    inception_features,
)
from triavatar.sheets import save_picture


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
    size: int | None = setting(None, at_least=1, at_most=8192)
    """Picture size in pixels; as on disk without it."""
    match: bool = True
    """Compare each avatar with every subject: is it closest to its own?"""
    lpips: Literal["auto", "off", "alex", "vgg"] = "auto"
    """Perceptual distance; auto is vgg when its weights are there, and says so when they aren't."""
    clip: str | None = None
    """CLIP model (hub id or folder) for the similarity of pictures; none without it."""
    inception: Path | None = None
    """FID's Inception network as TorchScript or ONNX; no FID without it."""
    face_network: Path | None = None
    """Face recogniser (ArcFace or alike) as TorchScript or ONNX, for the similarity of identities
    (CSIM); none without it."""
    face_box: tuple[float, float, float] = setting((0.5, 0.5, 0.6), above=0, at_most=1)
    """Square that the face recogniser sees, as shares of the picture: middle from the left, middle
    from the top, side."""
    face_angle: float = setting(45.0, above=0, at_most=180)
    """Degrees from straight ahead up to which views show a face."""
    march: RenderSettings = field(default_factory=RenderSettings)
    """How rays are marched."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def _optional(notes: dict[str, str], name: str, asked: bool, load: Callable[[], Any]) -> Any:
    """What `load` gives; where it fails and nobody asked for it by name, a note says why."""
    try:
        return load()
    except UserError as error:
        if asked:
            raise
        notes[name] = str(error)
        return None


def load_measures(config: EvaluateConfig, device: torch.device) -> Measures:
    """Open the networks of all metrics.

    Raises:
        UserError: one that was asked for is missing; names what to fetch.
    """
    measures = Measures(face_angle=config.face_angle)
    if config.lpips != "off":
        network = "vgg" if config.lpips == "auto" else config.lpips
        asked = config.lpips != "auto"
        found = _optional(measures.notes, "lpips", asked, lambda: Lpips(network, device))
        if found is not None:
            measures.pictures["lpips"] = found
    if config.clip is not None:
        measures.pictures["clip"] = similarity(clip_embedding(config.clip, device))
    else:
        measures.notes["clip"] = "give --clip a CLIP model, e.g. openai/clip-vit-large-patch14"
    if config.face_network is not None:
        measures.identity = similarity(face_identity(config.face_network, config.face_box))
    else:
        measures.notes["csim"] = f"give --face_network a face recogniser ({FACE_FILE})"
    if config.inception is not None:
        measures.inception = inception_features(config.inception)
    else:
        measures.notes["fid"] = f"give --inception {INCEPTION} ({INCEPTION_FILE})"
    return measures


def _pictures(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).float() / 255


def evaluate_subjects(
    fitted: FittedSet,
    truth: Mapping[str, Views],
    names: list[str],
    measures: Measures,
    config: EvaluateConfig,
    device: torch.device,
) -> tuple[dict[str, dict[str, float]], Match]:
    """Render every subject's triplane at its held-out cameras and measure.

    Args:
        fitted: the triplanes.
        truth: true views by subject, of all subjects to match against.
        names: subjects to measure.
        measures: what is measured; FID's sums are added up in it.
        config: settings; rendered views go to ``output_dir/views``, maps of their errors to
            ``output_dir/errors``.
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
        ours, true = _pictures(rendered).to(device), views.composited().to(device)
        for index, frame in enumerate(views.frames):
            file = f"{frame:06d}.png"
            save_picture(config.output_dir / "views" / name / file, rendered[index])
            save_picture(
                config.output_dir / "errors" / name / file, error_map(ours[index], true[index])
            )
        scores[name] = measures.of_subject(ours, true, views.cameras)
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
    measures = load_measures(config, device)
    compared = dataset.names if config.match else names
    truth = {
        name: dataset.load(name, dataset.split_views(config.views, name), config.size)
        for name in compared
    }
    scores, match = evaluate_subjects(fitted, truth, names, measures, config, device)
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
        "mean": mean_scores(scores, names),
        "interval": interval_scores(scores, names),
        "mean_by_identity_split": {k: mean_scores(scores, v) for k, v in splits.items()},
        "interval_by_identity_split": {k: interval_scores(scores, v) for k, v in splits.items()},
        "fid": measures.frechet(),
        "subjects": scores,
        "not_measured": measures.notes,
        "match": match.summary(splits) if config.match else None,
    }
    write_json(config.output_dir / "metrics.json", result)
    print_result(result, config.output_dir)


def print_result(result: dict[str, Any], folder: Path) -> None:
    """Print the means with their intervals, and where the details lie."""
    rows = [("all", result["mean"], result["interval"])]
    for split, values in result["mean_by_identity_split"].items():
        rows.append((split, values, result["interval_by_identity_split"][split]))
    for label, values, intervals in rows:
        figures = ", ".join(_figure(key, value, intervals) for key, value in values.items())
        print(f"{label:>10} subjects: {figures}")
    if intervals := result["interval"]:
        print(f"in brackets: 95 % interval of the mean over people ({', '.join(intervals)})")
    if (fid := result["fid"]) is not None:
        floor = f", {fid['floor']:.2f} between true people" if "floor" in fid else ""
        print(f"       FID {fid['fid']:.2f} of {fid['pictures']} pictures{floor}")
    if result["match"] is not None:
        for split, counts in result["match"]["by_identity_split"].items():
            print(
                f"{split:>10} subjects closest to their own: {counts['correct']} of {counts['of']}"
            )
    for name, why in result["not_measured"].items():
        print(f"{name} not measured: {why}")
    print(f"details: {folder / 'metrics.json'}, where views differ: {folder / 'errors'}")


def _figure(key: str, value: float, intervals: dict[str, list[float]]) -> str:
    if key not in intervals:
        return f"{key} {value:.3f}"
    low, high = intervals[key]
    return f"{key} {value:.3f} [{low:.3f}, {high:.3f}]"
