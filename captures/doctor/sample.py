"""Decoded pictures of some views: small ones for carving, and what their alpha says."""

from __future__ import annotations

import numpy as np
from PIL import Image

from captures.doctor.alpha import AlphaTally
from captures.doctor.inventory import Reading, Subject, View, spread
from captures.doctor.silhouettes import Sightings
from captures.rgba import resize_rgba
from runtime.errors import UserError


def look(
    subject: Subject,
    reading: Reading,
    n_views: int,
    n_decoded: int,
    side: int,
    tally: AlphaTally,
) -> Sightings | None:
    """Decode spread views, and besides the portrait and the view whose camera is most frontal.

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
    wanted = {reading.pictures.portrait_frame, most_frontal(usable, reading)}
    chosen += [view for view in usable if view.frame in wanted and view not in chosen]
    chosen.sort(key=lambda view: view.frame)
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


def most_frontal(views: list[View], reading: Reading) -> int | None:
    """The frame whose camera, as the set is read, sees the front best; None without cameras."""
    best: tuple[float, int] | None = None
    for view in views:
        if view.camera is None:
            continue
        try:
            c2w = reading.cameras.c2w(view.camera.transformation)
        except np.linalg.LinAlgError:
            continue
        house = reading.convention.to_house(c2w)
        # Facing -z and upright: both entries are -1 for the frontal camera.
        turned = float(house[2, 2] + house[1, 1])
        if best is None or turned < best[0]:
            best = (turned, view.frame)
    return None if best is None else best[1]


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
