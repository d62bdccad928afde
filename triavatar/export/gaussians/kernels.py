"""Drawing Gaussians into a picture, and the way back to their parameters.

Legend: N Gaussians, H W picture size in pixels.

A Gaussian is drawn as 3D Gaussian splatting does it (Kerbl et al. 2023): its covariance is
projected by the camera's linearised mapping (Zwicker et al. 2001) and widened by
:data:`PIXEL_FILTER`; front to back, each adds T·α·colour with α = opacity · exp(−½ dᵀ Σ⁻¹ d) and
leaves T·(1 − α). The Gaussians are painted one after the other over all their pixels, so no lists
per tile are needed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from triavatar.export.jit import jit

PIXEL_FILTER = 0.3
"""Variance in square pixels that viewers add, so that no Gaussian slips between pixels."""
FAINTEST = 1 / 255
MOST = 0.99
SPENT = 1e-3
"""Pixels that let less light through than this are finished."""


@jit
def project(positions, axes, c2w, fx, fy, cx, cy):
    """Gaussians in a camera.

    Args:
        positions: [N, 3] float32.
        axes: [N, 3, 3] float32; column k is the k-th principal axis times its standard deviation.
        c2w: [4, 4] float64.

    Returns:
        Centre x, y and depth, [N, 3]; covariance xx, xy, yy in square pixels, [N, 3]; the axes in
        the picture, [N, 2, 3]. Depth is 0 behind the camera.
    """
    n = positions.shape[0]
    centre = np.zeros((n, 3), np.float32)
    covariance = np.zeros((n, 3), np.float32)
    drawn = np.zeros((n, 2, 3), np.float32)
    for i in range(n):
        dx = positions[i, 0] - c2w[0, 3]
        dy = positions[i, 1] - c2w[1, 3]
        dz = positions[i, 2] - c2w[2, 3]
        x = dx * c2w[0, 0] + dy * c2w[1, 0] + dz * c2w[2, 0]
        y = dx * c2w[0, 1] + dy * c2w[1, 1] + dz * c2w[2, 1]
        z = dx * c2w[0, 2] + dy * c2w[1, 2] + dz * c2w[2, 2]
        if z < 0.1:
            continue
        centre[i, 0], centre[i, 1], centre[i, 2] = fx * x / z + cx, fy * y / z + cy, z
        for k in range(3):
            u = v = w = 0.0
            for a in range(3):
                u += c2w[a, 0] * axes[i, a, k]
                v += c2w[a, 1] * axes[i, a, k]
                w += c2w[a, 2] * axes[i, a, k]
            drawn[i, 0, k] = fx / z * (u - x / z * w)
            drawn[i, 1, k] = fy / z * (v - y / z * w)
            covariance[i, 0] += drawn[i, 0, k] * drawn[i, 0, k]
            covariance[i, 1] += drawn[i, 0, k] * drawn[i, 1, k]
            covariance[i, 2] += drawn[i, 1, k] * drawn[i, 1, k]
        covariance[i, 0] += PIXEL_FILTER
        covariance[i, 2] += PIXEL_FILTER
    return centre, covariance, drawn


class Footprint(NamedTuple):
    """The pixels that a Gaussian shows in.

    Attributes:
        xx, xy, yy: of its inverse covariance.
        limit: of the exponent, beyond which it is too faint to show.
        left, right, top, bottom: columns and rows, the last ones excluded; none for a Gaussian
            behind the camera, or as faint.
    """

    xx: float
    xy: float
    yy: float
    limit: float
    left: int
    right: int
    top: int
    bottom: int


@jit
def _bounds(middle, reach, size):
    return max(0, math.ceil(middle - reach - 0.5)), min(size, math.floor(middle + reach - 0.5) + 1)


@jit
def _footprint(centre, covariance, opacity, height, width):
    a, b, c = covariance
    determinant = a * c - b * b
    xx, xy, yy = c / determinant, -b / determinant, a / determinant
    if centre[2] <= 0.0 or opacity <= FAINTEST:
        return Footprint(xx, xy, yy, np.float32(0.0), 0, 0, 0, 0)
    limit = np.float32(math.log(opacity / FAINTEST))
    left, right = _bounds(centre[0], math.sqrt(2.0 * limit * a), width)
    top, bottom = _bounds(centre[1], math.sqrt(2.0 * limit * c), height)
    return Footprint(xx, xy, yy, limit, left, right, top, bottom)


@jit
def _exponent(at, dx, dy):
    """Half the squared distance from the centre, in standard deviations."""
    return np.float32(0.5) * (at.xx * dx * dx + at.yy * dy * dy) + at.xy * dx * dy


@jit
def paint(order, centre, covariance, opacity, color, picture, through):
    """Paint Gaussians front to back.

    Args:
        order: indices, near first.
        centre, covariance: from :func:`project`.
        opacity: [N] in (0, 1).
        color: [N, 3].
        picture: [H, W, 3] float32, begun with 0; receives colours on black.
        through: [H, W] float32, begun with 1; receives the light that passes.
    """
    height, width = through.shape
    for i in order:
        at = _footprint(centre[i], covariance[i], opacity[i], height, width)
        red, green, blue, strength = color[i, 0], color[i, 1], color[i, 2], opacity[i]
        for y in range(at.top, at.bottom):
            dy = np.float32(y + 0.5) - centre[i, 1]
            for x in range(at.left, at.right):
                light = through[y, x]
                if light < SPENT:
                    continue
                dx = np.float32(x + 0.5) - centre[i, 0]
                power = _exponent(at, dx, dy)
                if power > at.limit:
                    continue
                alpha = min(np.float32(MOST), strength * math.exp(-power))
                weight = light * alpha
                picture[y, x, 0] += weight * red
                picture[y, x, 1] += weight * green
                picture[y, x, 2] += weight * blue
                through[y, x] = light * (np.float32(1.0) - alpha)


@jit
def trace_back(
    order, centre, covariance, opacity, color, picture, last, d_picture, d_through, gradients
):
    """Gradients of a loss with respect to what :func:`paint` was given.

    Args:
        picture, last: what :func:`paint` made of it (its ``picture`` and ``through``).
        d_picture, d_through: the loss's gradients with respect to them.
        gradients: [N, 9] float32, added to: centre x and y, covariance xx, xy (counted twice),
            yy, opacity, red, green, blue.
    """
    height, width = last.shape
    through = np.ones((height, width), np.float32)
    behind = picture.copy()  # what the Gaussians from the current one on add to each pixel
    for i in order:
        at = _footprint(centre[i], covariance[i], opacity[i], height, width)
        red, green, blue, strength = color[i, 0], color[i, 1], color[i, 2], opacity[i]
        for y in range(at.top, at.bottom):
            dy = np.float32(y + 0.5) - centre[i, 1]
            for x in range(at.left, at.right):
                light = through[y, x]
                if light < SPENT:
                    continue
                dx = np.float32(x + 0.5) - centre[i, 0]
                power = _exponent(at, dx, dy)
                if power > at.limit:
                    continue
                bell = math.exp(-power)
                alpha = min(np.float32(MOST), strength * bell)
                weight = light * alpha
                rest = np.float32(1.0) - alpha
                d_red, d_green, d_blue = d_picture[y, x, 0], d_picture[y, x, 1], d_picture[y, x, 2]
                gradients[i, 6] += weight * d_red
                gradients[i, 7] += weight * d_green
                gradients[i, 8] += weight * d_blue
                behind[y, x, 0] -= weight * red
                behind[y, x, 1] -= weight * green
                behind[y, x, 2] -= weight * blue
                d_alpha = (
                    d_red * (light * red - behind[y, x, 0] / rest)
                    + d_green * (light * green - behind[y, x, 1] / rest)
                    + d_blue * (light * blue - behind[y, x, 2] / rest)
                    - d_through[y, x] * last[y, x] / rest
                )
                through[y, x] = light * rest
                if strength * bell >= MOST:
                    continue
                gradients[i, 5] += d_alpha * bell
                d_power = -d_alpha * alpha
                sx, sy = at.xx * dx + at.xy * dy, at.xy * dx + at.yy * dy
                gradients[i, 0] -= d_power * sx
                gradients[i, 1] -= d_power * sy
                half = np.float32(0.5) * d_power
                gradients[i, 2] -= half * sx * sx
                gradients[i, 3] -= d_power * sx * sy
                gradients[i, 4] -= half * sy * sy


@jit
def unproject(gradients, positions, drawn, c2w, fx, fy, d_positions, d_scales):
    """Gradients in the picture to those in space.

    That a Gaussian's outline changes where it moves to is left out: it matters little for moves
    that are small against the distance of the camera.

    Args:
        gradients: from :func:`trace_back`.
        drawn: axes in the picture, from :func:`project`.
        d_positions: [N, 3] float32, added to.
        d_scales: [N, 3] float32, added to: with respect to the logarithms of the axes' lengths.
    """
    for i in range(positions.shape[0]):
        dx = positions[i, 0] - c2w[0, 3]
        dy = positions[i, 1] - c2w[1, 3]
        dz = positions[i, 2] - c2w[2, 3]
        x = dx * c2w[0, 0] + dy * c2w[1, 0] + dz * c2w[2, 0]
        y = dx * c2w[0, 1] + dy * c2w[1, 1] + dz * c2w[2, 1]
        z = dx * c2w[0, 2] + dy * c2w[1, 2] + dz * c2w[2, 2]
        if z < 0.1:
            continue
        gx, gy = fx / z * gradients[i, 0], fy / z * gradients[i, 1]
        gz = -(x * gx + y * gy) / z
        for k in range(3):
            d_positions[i, k] += c2w[k, 0] * gx + c2w[k, 1] * gy + c2w[k, 2] * gz
            u, v = drawn[i, 0, k], drawn[i, 1, k]
            d_scales[i, k] += 2 * (
                gradients[i, 2] * u * u + gradients[i, 3] * u * v + gradients[i, 4] * v * v
            )
