"""What is known of a person, fitted under a model's decoder from where its prior expects people.

Legend: C channels, H W plane size, M pictures.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from captures.cameras import Cameras
from captures.multiview import resize_rgba
from likeness.learned.likeness_model import LikenessModel
from likeness.portrait.portrait import Portrait
from likeness.settings import LikenessSettings
from likeness.several.fit_views import SeveralSettings, fit_views
from renderer.decoder import TriplaneDecoder
from triavatar.avatar import Avatar
from triavatar.fit.captured import Captured

LEFT_OUT_SHOWN = 5


def fit_avatar(
    captured: Captured,
    model: LikenessModel,
    decoder: TriplaneDecoder,
    device: torch.device,
    name: str,
    *,
    likeness: LikenessSettings | None = None,
    several: SeveralSettings | None = None,
    tell: Callable[[str], None] = lambda step: None,
) -> Avatar:
    """Return the avatar of one person.

    Args:
        captured: pictures, with cameras or without.
        model: prior and regression, from which the fit starts.
        decoder: of the prior's triplanes.
        device: where the avatar shall be.
        name: of the avatar.
        likeness, several: how it is fitted.
        tell: called with the name of each step that is begun.
    """
    likeness = likeness or LikenessSettings()
    portraits = _portraits(captured, model, likeness.size)
    order = list(range(len(portraits)))
    if captured.cameras is None:
        # The most usual picture is the one from the front, by which all begins.
        order.sort(key=lambda i: model.regression.surprise(portraits[i]))
    planes, _, found = fit_views(
        [portraits[i] for i in order],
        model,
        copy.deepcopy(decoder).cpu(),
        cameras_known=captured.cameras is not None,
        # Captures have sizes and places of their own; sets have the house's.
        aligned=captured.kind not in ("mesh", "transforms", "colmap"),
        likeness=likeness,
        settings=several,
        tell=tell,
    )
    record = {
        "fit": {
            **found.as_dict(),
            "kind": captured.kind,
            "pictures": [captured.names[i] for i in order],
            "left_out": captured.left_out,
        },
        "warnings": [*_left_out(captured), *found.warnings],
    }
    planes = planes.detach().to(device).clamp(-1, 1).half().float()
    return Avatar(planes, decoder, name, captured.pictures[order[0]], record)


def _left_out(captured: Captured) -> list[str]:
    reasons = captured.left_out
    more = len(reasons) - LEFT_OUT_SHOWN
    shown = [f"left out: {reason}" for reason in reasons[:LEFT_OUT_SHOWN]]
    return [*shown, f"left out: {more} more pictures"] if more > 0 else shown


def _portraits(captured: Captured, model: LikenessModel, size: int) -> list[Portrait]:
    """The pictures with their cameras, or with the one that the model's portraits have."""
    cameras = captured.cameras
    found = []
    for index, picture in enumerate(captured.pictures):
        camera: Cameras = model.camera if cameras is None else cameras[index]
        if len(picture) > size:
            picture = np.asarray(resize_rgba(Image.fromarray(picture), size))
        found.append(Portrait.of(picture, camera))
    return found
