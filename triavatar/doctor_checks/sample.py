"""Decoded pictures of some views: small ones for carving, and what their alpha says."""

from __future__ import annotations

import numpy as np
from PIL import Image

from renderer.pictures import resize_rgba
from runtime.errors import UserError
from triavatar.doctor_checks.alpha import AlphaTally
from triavatar.doctor_checks.inventory import Reading, Subject, View, spread
from triavatar.doctor_checks.silhouettes import Sightings


def look(
    subject: Subject,
    reading: Reading,
    n_views: int,
    n_decoded: int,
    side: int,
    tally: AlphaTally,
) -> Sightings | None:
    """Decode spread views, the portrait among them.

    Args:
        n_views: views to return; all for 0.
        n_decoded: least number of pictures decoded, to find damaged and empty ones.
        side: width of the small pictures.
        tally: takes what the full-size pictures say about alpha.

    Returns:
        Views whose picture shows a subject; None where fewer than four do. A picture that cannot
        be decoded gets a ``picture_fault``.
    """
    usable = [view for view in subject.views.values() if view.usable]
    chosen = spread(usable, n_views)
    portrait = subject.views.get(reading.pictures.portrait_frame)
    if portrait is not None and portrait.usable and portrait not in chosen:
        chosen = sorted([portrait, *chosen[1:]], key=lambda view: view.frame)
    frames, images, stored = [], [], []
    carved = {view.frame for view in chosen}
    extra = [view for view in spread(usable, max(n_decoded, 1)) if view.frame not in carved]
    for view in [*chosen, *extra]:
        try:
            image = reading.pictures.read(subject.picture_path(view.frame))
        except UserError as error:
            view.picture_fault = str(error)
            continue
        weigh = view.frame in carved
        tally.add((subject.name, view.frame), np.asarray(image), weigh)
        if not weigh:
            continue
        small = _small(image, view, side)
        alpha = small[..., 3]
        if view.camera is None or (alpha > 127).sum() < 8 or (alpha > 127).mean() > 0.995:
            continue
        if images and small.shape != images[0].shape:
            continue
        frames.append(view.frame)
        images.append(small)
        stored.append(view.camera)
    if len(frames) < 4:
        return None
    return Sightings(subject.name, frames, np.stack(images), stored)


def _small(image: Image.Image, view: View, side: int) -> np.ndarray:
    width, height = view.size
    size = (side, max(1, round(side * height / width)))
    return np.asarray(image if image.size == size else resize_rgba(image, size))


def shrink(seen: Sightings, side: int) -> Sightings:
    """The same views in a smaller size."""
    height, width = seen.images.shape[1:3]
    size = (side, max(1, round(side * height / width)))
    images = [np.asarray(resize_rgba(Image.fromarray(rgba, "RGBA"), size)) for rgba in seen.images]
    return Sightings(seen.name, seen.frames, np.stack(images), seen.stored)
