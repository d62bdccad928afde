"""Triplane look-ups and the frequency encoding, forward and backward.

Legend: N samples of a chunk, S all samples, B triplanes, C channels, K some of them, H W plane
size, R rays, F = 1 + 2·frequencies.

Planes are channel-last, [B·3, H, W, C]: a texel's channels are neighbours in memory, so they load
as vectors (:mod:`renderer.cpu.kernels.lanes`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from renderer.cpu.kernels.jit import kernel, sin_cos
from renderer.cpu.kernels.lanes import load4, load8, spread4, spread8, store4, store8

TILE = 32  # samples that are worked on at once, from the first-level cache


class Places(NamedTuple):
    """Places of samples: at ``origins[ray] + t · directions[ray]``.

    Attributes:
        origins, directions: [R, 3] fp32.
        rays_each: rays of one triplane; ray r belongs to triplane r // rays_each.
        ray: [S] int64. t: [S] fp32.
        view: row of the ray term of each sample, [S] int64; usually ``ray``.
    """

    origins: np.ndarray
    directions: np.ndarray
    rays_each: int
    ray: np.ndarray
    t: np.ndarray
    view: np.ndarray

    def at(self, samples: slice) -> Places:
        """Those of ``samples`` alone."""
        ray, t, view = self.ray[samples], self.t[samples], self.view[samples]
        return Places(self.origins, self.directions, self.rays_each, ray, t, view)


class _Tile(NamedTuple):
    """Texels of up to TILE samples.

    Attributes:
        rows: upper and lower row of each plane, counted from the first plane's, [6, TILE] int32.
        offsets: first channel of each texel, counted from the triplane's first, [12, TILE] int32.
        weights: of each texel in the mean over the three planes, [12, TILE].
        base: offset of each sample's triplane, [TILE] int64.
    """

    rows: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    base: np.ndarray


@kernel
def _new_tile():
    return _Tile(
        np.empty((6, TILE), np.int32),
        np.empty((12, TILE), np.int32),
        np.empty((12, TILE), np.float32),
        np.empty(TILE, np.int64),
    )


@kernel(exact=True)
def _axis(coordinate, size, low, upper):
    """Lower texel and the upper one's weight; ``align_corners``, clamped to the border."""
    last = np.float32(size - 1)
    before = np.int32(max(size - 2, 0))
    for s in range(coordinate.shape[0]):
        x = (coordinate[s] + np.float32(1.0)) * np.float32(0.5) * last
        x = min(max(x, np.float32(0.0)), last)
        low[s] = min(np.int32(x), before)
        upper[s] = x - np.float32(low[s])


@kernel(exact=True)
def _corners(shape, places, start, stop, tile):
    """Set ``tile`` to the texels of samples ``start … stop``; ``shape`` is the planes'."""
    rows, offsets, weights, base = tile
    height, width, channels = shape[1], shape[2], np.int32(shape[3])
    place = np.empty((3, TILE), np.float32)
    for s in range(stop - start):
        r, distance = places.ray[start + s], places.t[start + s]
        for axis in range(3):
            place[axis, s] = places.origins[r, axis] + distance * places.directions[r, axis]
        base[s] = (r // places.rays_each) * (3 * height * width * shape[3])
    # Where the last tile is not full, its rest is computed from whatever lies there.
    left, above = np.empty((2, TILE), np.int32)
    a, b = np.empty((2, TILE), np.float32)
    third = np.float32(1 / 3)
    for p in range(3):
        _axis(place[1 if p == 2 else 0], width, left, a)
        _axis(place[1 if p == 0 else 2], height, above, b)
        for s in range(TILE):
            i, j = left[s], above[s]
            right = min(i + np.int32(1), np.int32(width - 1))
            below = min(j + np.int32(1), np.int32(height - 1))
            lower = b[s] * third
            upper = third - lower
            weights[4 * p + 1, s] = a[s] * upper
            weights[4 * p + 3, s] = a[s] * lower
            weights[4 * p, s] = upper - a[s] * upper
            weights[4 * p + 2, s] = lower - a[s] * lower
            first, second = np.int32(p * height) + j, np.int32(p * height) + below
            rows[2 * p, s], rows[2 * p + 1, s] = first, second
            first *= np.int32(width)
            second *= np.int32(width)
            offsets[4 * p, s] = (first + i) * channels
            offsets[4 * p + 1, s] = (first + right) * channels
            offsets[4 * p + 2, s] = (second + i) * channels
            offsets[4 * p + 3, s] = (second + right) * channels


@kernel
def gather(planes, places, low, features):
    """Means over the three planes of channels ``low …`` at N samples, into ``features`` [N, K]."""
    count, channels = features.shape
    tile = _new_tile()
    offsets, weights = tile.offsets, tile.weights
    flat, out = planes.reshape(planes.size), features.reshape(features.size)
    for start in range(0, count, TILE):
        stop = min(start + TILE, count)
        _corners(planes.shape, places, start, stop, tile)
        for s in range(stop - start):
            source, target = tile.base[s] + low, (start + s) * channels
            c = 0
            while c + 8 <= channels:
                x = load8(flat, source + c + offsets[0, s]) * spread8(weights[0, s])
                y = load8(flat, source + c + offsets[1, s]) * spread8(weights[1, s])
                for q in range(2, 12, 2):
                    x = x + load8(flat, source + c + offsets[q, s]) * spread8(weights[q, s])
                    y = y + load8(flat, source + c + offsets[q + 1, s]) * spread8(weights[q + 1, s])
                store8(out, target + c, x + y)
                c += 8
            if c + 4 <= channels:
                x = load4(flat, source + c + offsets[0, s]) * spread4(weights[0, s])
                y = load4(flat, source + c + offsets[1, s]) * spread4(weights[1, s])
                for q in range(2, 12, 2):
                    x = x + load4(flat, source + c + offsets[q, s]) * spread4(weights[q, s])
                    y = y + load4(flat, source + c + offsets[q + 1, s]) * spread4(weights[q + 1, s])
                store4(out, target + c, x + y)
                c += 4
            for k in range(c, channels):
                total = np.float32(0.0)
                for q in range(12):
                    total += flat[source + k + offsets[q, s]] * weights[q, s]
                out[target + k] = total


@kernel
def _copy_columns(source, i, source_stride, target, j, target_stride, rows, count):
    """Copy ``count`` columns of some rows; the arrays are one-dimensional, i and j the starts."""
    c = 0
    while c + 8 <= count:
        for n in range(rows):
            values = load8(source, i + n * source_stride + c)
            store8(target, j + n * target_stride + c, values)
        c += 8
    if c + 4 <= count:
        for n in range(rows):
            few = load4(source, i + n * source_stride + c)
            store4(target, j + n * target_stride + c, few)
        c += 4
    for k in range(c, count):
        for n in range(rows):
            target[j + n * target_stride + k] = source[i + n * source_stride + k]


@kernel
def encode(features, low, count, frequencies, encoded):
    """The frequency encoding of ``count`` channels, into the first columns of ``encoded``.

    Args:
        features: [N, K], of which channels ``low …`` are encoded.
        encoded: [N, ≥ F·count]: x, then sin and cos of x·2⁰, x·2¹, …
    """
    width, stride = features.shape[1], encoded.shape[1]
    source, target = features.reshape(features.size), encoded.reshape(encoded.size)
    # The channels of many samples side by side: long enough to vectorise, whatever their number.
    bands = np.zeros((1 + 2 * frequencies, TILE * count), np.float32)
    flat = bands.reshape(bands.size)
    for start in range(0, features.shape[0], TILE):
        samples = min(TILE, features.shape[0] - start)
        _copy_columns(source, start * width + low, width, flat, 0, count, samples, count)
        if frequencies > 0:
            x, sine, cosine = bands[0], bands[1], bands[2]
            for i in range(x.shape[0]):
                sine[i], cosine[i] = sin_cos(x[i])
        for f in range(1, frequencies):
            # Double angles: sin 2x = 2·sin x·cos x, cos 2x = 1 − 2·sin² x.
            sine, cosine = bands[2 * f - 1], bands[2 * f]
            double_sine, double_cosine = bands[2 * f + 1], bands[2 * f + 2]
            for i in range(sine.shape[0]):
                double_sine[i] = np.float32(2.0) * sine[i] * cosine[i]
                double_cosine[i] = np.float32(1.0) - np.float32(2.0) * sine[i] * sine[i]
        for f in range(1 + 2 * frequencies):
            place = start * stride + f * count
            _copy_columns(flat, f * TILE * count, count, target, place, stride, samples, count)


@kernel
def encode_backward(encoded, gradient, frequencies, low, count, out):
    """Gradient of :func:`encode` to its features, written to ``out[:, low : low + count]``.

    Args:
        encoded: what it wrote, [N, ≥ F·count]. gradient: to that, same shape.
        out: [N, C].
    """
    stride, width = encoded.shape[1], out.shape[1]
    value, slope = encoded.reshape(encoded.size), gradient.reshape(gradient.size)
    target = out.reshape(out.size)
    for s in range(out.shape[0]):
        row, place = s * stride, s * width + low
        c = 0
        while c + 4 <= count:
            total = load4(slope, row + c)
            factor = np.float32(1.0)
            for f in range(frequencies):
                sine = row + (2 * f + 1) * count + c
                cosine = sine + count
                change = load4(slope, sine) * load4(value, cosine)
                change = change - load4(slope, cosine) * load4(value, sine)
                total = total + spread4(factor) * change
                factor *= np.float32(2.0)
            store4(target, place + c, total)
            c += 4
        for k in range(c, count):
            rest = slope[row + k]
            factor = np.float32(1.0)
            for f in range(frequencies):
                sine = row + (2 * f + 1) * count + k
                cosine = sine + count
                rest += factor * (slope[sine] * value[cosine] - slope[cosine] * value[sine])
                factor *= np.float32(2.0)
            target[place + k] = rest


@kernel
def lattice_table(plane, first, second):
    """One plane [H, W, C] at the lattice first × second, a third of it: [G, G, C]."""
    height, width, channels = plane.shape
    size = first.shape[0]
    i, j = np.empty((2, size), np.int32)
    a, b = np.empty((2, size), np.float32)
    _axis(first, width, i, a)
    _axis(second, height, j, b)
    table = np.empty((size, size, channels), np.float32)
    third = np.float32(1 / 3)
    for m in range(size):
        left, right = i[m], min(i[m] + 1, width - 1)
        for n in range(size):
            above, below = j[n], min(j[n] + 1, height - 1)
            for c in range(channels):
                top = plane[above, left, c]
                top += a[m] * (plane[above, right, c] - top)
                bottom = plane[below, left, c]
                bottom += a[m] * (plane[below, right, c] - bottom)
                table[m, n, c] = (top + b[n] * (bottom - top)) * third
    return table


@kernel
def lattice_features(xy, xz, yz, cells, features):
    """Features of the lattice's points ``cells`` [N] (row-major), into [N, K]."""
    size, channels = yz.shape[0], yz.shape[2]
    for n in range(cells.shape[0]):
        cell = cells[n]
        k = cell % size
        j = (cell // size) % size
        i = cell // (size * size)
        for c in range(channels):
            features[n, c] = xy[i, j, c] + xz[i, k, c] + yz[j, k, c]


@kernel
def scatter(gradient, places, owner, planes):
    """Add the gradients of S features [S, C] to the planes' gradient [B·3, H, W, C].

    Args:
        owner: rows of a triplane that are this worker's, [3·H] of 0 and 1. Each worker walks all
            samples in order, so sums need no atomics and do not depend on how rows are shared.
    """
    count, channels = gradient.shape
    tile = _new_tile()
    offsets, weights = tile.offsets, tile.weights
    values, flat = gradient.reshape(gradient.size), planes.reshape(planes.size)
    for start in range(0, count, TILE):
        stop = min(start + TILE, count)
        _corners(planes.shape, places, start, stop, tile)
        for s in range(stop - start):
            source = (start + s) * channels
            for q in range(12):
                if not owner[tile.rows[q // 2, s]]:
                    continue
                target, weight = tile.base[s] + offsets[q, s], weights[q, s]
                c = 0
                while c + 8 <= channels:
                    change = spread8(weight) * load8(values, source + c)
                    store8(flat, target + c, load8(flat, target + c) + change)
                    c += 8
                if c + 4 <= channels:
                    few = spread4(weight) * load4(values, source + c)
                    store4(flat, target + c, load4(flat, target + c) + few)
                    c += 4
                for k in range(c, channels):
                    flat[target + k] += weight * values[source + k]
