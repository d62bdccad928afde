"""Triplane look-ups and the frequency encoding, forward and backward.

Legend: N samples of a chunk, S all samples, B triplanes, C channels, H W plane size, R rays.

Planes are channel-last, [B·3, H, W, C]: a texel's channels are neighbours in memory, so they load
as vectors.
"""

from __future__ import annotations

import numpy as np

from renderer.cpu.jit import kernel, sin_cos

TILE = 32  # samples whose features lie in the first-level cache together


@kernel(exact=True)
def corner(coordinate, size):
    """Lower texel and the upper one's weight; ``align_corners``, clamped to the border."""
    x = (coordinate + np.float32(1.0)) * np.float32(0.5) * np.float32(size - 1)
    x = min(max(x, np.float32(0.0)), np.float32(size - 1))
    low = min(np.int64(x), max(size - 2, 0))
    return low, x - np.float32(low)


@kernel
def gather(planes, triplane, x, y, z, low, features):
    """Mean over the three planes of channels ``low …`` at one point, into ``features`` [K]."""
    height, width = planes.shape[1], planes.shape[2]
    features[:] = 0
    for p in range(3):
        u = y if p == 2 else x
        v = y if p == 0 else z
        i, a = corner(u, width)
        j, b = corner(v, height)
        right = min(i + 1, width - 1)
        below = min(j + 1, height - 1)
        plane = planes[triplane * 3 + p]
        third = np.float32(1 / 3)
        w00 = (np.float32(1.0) - a) * (np.float32(1.0) - b) * third
        w01 = a * (np.float32(1.0) - b) * third
        w10 = (np.float32(1.0) - a) * b * third
        w11 = a * b * third
        t00, t01 = plane[j, i], plane[j, right]
        t10, t11 = plane[below, i], plane[below, right]
        for c in range(features.shape[0]):
            k = low + c
            features[c] += w00 * t00[k] + w01 * t01[k] + w10 * t10[k] + w11 * t11[k]


@kernel
def encode(bands):
    """The frequency encoding, channel by channel: [1 + 2·frequencies, M], x in the first row.

    The others become sin and cos of x·2⁰, x·2¹, …; the channels of many samples lie side by side
    in a row, so everything vectorises whatever their number.
    """
    frequencies = bands.shape[0] // 2
    if frequencies == 0:
        return
    x, sine, cosine = bands[0], bands[1], bands[2]
    for i in range(x.shape[0]):
        s, c = sin_cos(x[i])
        sine[i] = s
        cosine[i] = c
    for f in range(1, frequencies):
        # Double angles: sin 2x = 2·sin x·cos x, cos 2x = 1 − 2·sin² x.
        sine, cosine = bands[2 * f - 1], bands[2 * f]
        double_sine, double_cosine = bands[2 * f + 1], bands[2 * f + 2]
        for i in range(x.shape[0]):
            s, c = sine[i], cosine[i]
            double_sine[i] = np.float32(2.0) * s * c
            double_cosine[i] = np.float32(1.0) - np.float32(2.0) * s * s


@kernel
def take_channels(bands, sample, low, count, encoded):
    """Channels ``low … low + count`` of one sample of ``bands`` [F, TILE, C] → [F·count]."""
    for f in range(bands.shape[0]):
        source = bands[f, sample, low:]
        target = encoded[f * count : (f + 1) * count]
        for c in range(count):
            target[c] = source[c]


@kernel
def encode_backward(encoded, gradient, frequencies, count, out):
    """Gradient of :func:`encode` to its input, [K], from its output and their gradients."""
    for c in range(count):
        out[c] = gradient[c]
    factor = np.float32(1.0)
    for f in range(frequencies):
        first = (2 * f + 1) * count
        for c in range(count):
            s, k = encoded[first + c], encoded[first + count + c]
            out[c] += factor * (gradient[first + c] * k - gradient[first + count + c] * s)
        factor *= np.float32(2.0)


@kernel
def gather_tile(planes, origins, directions, rays_each, ray, t, low, start, stop, feature):
    """Features of samples ``start … stop``, channels ``low …``, into ``feature`` [TILE, K]."""
    for i in range(start, stop):
        r = ray[i]
        x = origins[r, 0] + t[i] * directions[r, 0]
        y = origins[r, 1] + t[i] * directions[r, 1]
        z = origins[r, 2] + t[i] * directions[r, 2]
        gather(planes, r // rays_each, x, y, z, low, feature[i - start])


@kernel
def encode_density(
    planes, origins, directions, rays_each, ray, t, color_channels, frequencies, encoded
):
    """Encoded density channels of N samples, into ``encoded`` [N, E]."""
    channels = planes.shape[3] - color_channels
    bands = np.zeros((1 + 2 * frequencies, TILE, channels), np.float32)
    flat = bands.reshape(bands.shape[0], TILE * channels)
    for start in range(0, ray.shape[0], TILE):
        stop = min(start + TILE, ray.shape[0])
        gather_tile(
            planes, origins, directions, rays_each, ray, t, color_channels, start, stop, bands[0]
        )
        encode(flat)
        for i in range(start, stop):
            take_channels(bands, i - start, 0, channels, encoded[i])


@kernel
def encode_samples(
    planes,
    origins,
    directions,
    rays_each,
    ray,
    t,
    color_channels,
    frequencies,
    color_encoded,
    density_encoded,
):
    """Encoded channels of N samples: into the first columns of ``color_encoded`` and [N, E]."""
    channels = planes.shape[3]
    bands = np.zeros((1 + 2 * frequencies, TILE, channels), np.float32)
    flat = bands.reshape(bands.shape[0], TILE * channels)
    for start in range(0, ray.shape[0], TILE):
        stop = min(start + TILE, ray.shape[0])
        gather_tile(planes, origins, directions, rays_each, ray, t, 0, start, stop, bands[0])
        encode(flat)
        for i in range(start, stop):
            take_channels(bands, i - start, 0, color_channels, color_encoded[i])
            take_channels(
                bands, i - start, color_channels, channels - color_channels, density_encoded[i]
            )


@kernel
def lattice_table(plane, first, second):
    """One plane [H, W, C] at the lattice first × second, a third of it: [G, G, C]."""
    height, width, channels = plane.shape
    table = np.empty((first.shape[0], second.shape[0], channels), np.float32)
    third = np.float32(1 / 3)
    for m in range(first.shape[0]):
        i, a = corner(first[m], width)
        right = min(i + 1, width - 1)
        for n in range(second.shape[0]):
            j, b = corner(second[n], height)
            below = min(j + 1, height - 1)
            for c in range(channels):
                top = plane[j, i, c] + a * (plane[j, right, c] - plane[j, i, c])
                bottom = plane[below, i, c] + a * (plane[below, right, c] - plane[below, i, c])
                table[m, n, c] = (top + b * (bottom - top)) * third
    return table


@kernel
def encode_lattice(xy, xz, yz, cells, frequencies, encoded):
    """Encoded features of the lattice's points ``cells`` [N] (row-major), into [N, E]."""
    size, channels = yz.shape[0], yz.shape[2]
    bands = np.zeros((1 + 2 * frequencies, TILE, channels), np.float32)
    flat = bands.reshape(bands.shape[0], TILE * channels)
    total = encoded.shape[0]
    for start in range(0, total, TILE):
        stop = min(start + TILE, total)
        for n in range(start, stop):
            cell = cells[n]
            k = cell % size
            j = (cell // size) % size
            i = cell // (size * size)
            feature = bands[0, n - start]
            for c in range(channels):
                feature[c] = xy[i, j, c] + xz[i, k, c] + yz[j, k, c]
        encode(flat)
        for n in range(start, stop):
            take_channels(bands, n - start, 0, channels, encoded[n])


@kernel
def decode_gradients(
    color_encoded,
    density_encoded,
    color_gradient,
    density_gradient,
    color_channels,
    frequencies,
    out,
):
    """Gradients to the features [N, C] from those to their encodings."""
    channels = out.shape[1]
    for i in range(out.shape[0]):
        encode_backward(
            color_encoded[i],
            color_gradient[i],
            frequencies,
            color_channels,
            out[i, :color_channels],
        )
        encode_backward(
            density_encoded[i],
            density_gradient[i],
            frequencies,
            channels - color_channels,
            out[i, color_channels:],
        )


@kernel
def decode_density_gradients(density_encoded, density_gradient, color_channels, frequencies, out):
    """As :func:`decode_gradients` where colour was not computed: its channels get zero."""
    for i in range(out.shape[0]):
        out[i, :color_channels] = 0
        encode_backward(
            density_encoded[i],
            density_gradient[i],
            frequencies,
            out.shape[1] - color_channels,
            out[i, color_channels:],
        )


@kernel
def scatter(gradient, origins, directions, rays_each, ray, t, worker, workers, planes):
    """Add the gradients of S features [S, C] to the planes' gradient [B·3, H, W, C].

    Each worker owns the rows whose number modulo ``workers`` is its own and walks all samples in
    order, so sums need no atomics and do not depend on the number of workers.
    """
    height, width = planes.shape[1], planes.shape[2]
    channels = planes.shape[3]
    third = np.float32(1 / 3)
    for s in range(ray.shape[0]):
        r = ray[s]
        x = origins[r, 0] + t[s] * directions[r, 0]
        y = origins[r, 1] + t[s] * directions[r, 1]
        z = origins[r, 2] + t[s] * directions[r, 2]
        values = gradient[s]
        for p in range(3):
            u = y if p == 2 else x
            v = y if p == 0 else z
            j, b = corner(v, height)
            below = min(j + 1, height - 1)
            mine = j % workers == worker
            also_mine = below % workers == worker
            if not (mine or also_mine):
                continue
            i, a = corner(u, width)
            right = min(i + 1, width - 1)
            plane = planes[(r // rays_each) * 3 + p]
            if mine:
                w0 = (np.float32(1.0) - a) * (np.float32(1.0) - b) * third
                w1 = a * (np.float32(1.0) - b) * third
                left_texel, right_texel = plane[j, i], plane[j, right]
                for c in range(channels):
                    left_texel[c] += w0 * values[c]
                for c in range(channels):
                    right_texel[c] += w1 * values[c]
            if also_mine:
                w0 = (np.float32(1.0) - a) * b * third
                w1 = a * b * third
                left_texel, right_texel = plane[below, i], plane[below, right]
                for c in range(channels):
                    left_texel[c] += w0 * values[c]
                for c in range(channels):
                    right_texel[c] += w1 * values[c]
