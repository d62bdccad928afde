"""The decoder's elementwise steps between its matrix products, forward and backward.

Legend: N samples of a chunk, R rays, K hidden width, D width of the encoded colour channels.
"""

from __future__ import annotations

import math

import numpy as np

from renderer.cpu.kernels.jit import fast_exp, kernel, softplus
from renderer.decoder import GRADIENT_EXPONENT, MAX_EXPONENT

_CAP = np.float32(MAX_EXPONENT)
_GRADIENT_CAP = np.float32(GRADIENT_EXPONENT)
# Samples summed on their own before they join a total: keeps fp32 sums accurate.
BLOCK = 64


@kernel
def density_head(hidden, bias, weight, offset, column, target, exponent):
    """Softplus and the density output.

    Args:
        hidden: first products [N, K].
        bias, weight: [K]. offset: the output's bias.
        target: softplus(hidden + bias) goes into ``target[:, column:]``, [N, D + K]; not
            ``hidden`` itself, or the loop cannot vectorise.
        exponent: [N] receives the output before its exponential.
    """
    width = hidden.shape[1]
    for i in range(hidden.shape[0]):
        row, values = hidden[i], target[i, column : column + width]
        total = np.float32(0.0)
        for k in range(width):
            value = softplus(row[k] + bias[k])
            values[k] = value
            total += value * weight[k]
        exponent[i] = total + offset


@kernel
def bounded_exp(exponent, density):
    """Density from its logarithm, [N] each."""
    for i in range(exponent.shape[0]):
        density[i] = fast_exp(min(exponent[i], _CAP))


@kernel
def add_ray_term_relu(hidden, ray, term):
    """hidden ← relu(hidden + term[ray]); hidden [N, K], term [R, K]."""
    width = hidden.shape[1]
    for i in range(hidden.shape[0]):
        row, offset = hidden[i], term[ray[i]]
        for k in range(width):
            row[k] = max(row[k] + offset[k], np.float32(0.0))


@kernel
def color_head(hidden, weight, color):
    """color ← sigmoid(weight @ relu(hidden)) [N, 3], from hidden [N, K]."""
    width = hidden.shape[1]
    one = np.float32(1.0)
    to_red, to_green, to_blue = weight[0], weight[1], weight[2]
    for i in range(hidden.shape[0]):
        row = hidden[i]
        red = green = blue = np.float32(0.0)
        for k in range(width):
            value = max(row[k], np.float32(0.0))
            red += value * to_red[k]
            green += value * to_green[k]
            blue += value * to_blue[k]
        color[i, 0], color[i, 1], color[i, 2] = red, green, blue
    # On its own: three numbers a sample do not fill a vector.
    flat = color.reshape(color.size)
    for i in range(flat.shape[0]):
        flat[i] = one / (one + fast_exp(-flat[i]))


@kernel
def color_head_backward(hidden, weight, color, color_gradient, trained, out, weight_gradient):
    """Gradient before the last ReLU into ``out`` [N, K]; adds to ``weight_gradient`` [3, K] if
    ``trained``.

    ``hidden`` [N, K] is as :func:`color_head` reads it, before the ReLU.
    """
    width = hidden.shape[1]
    zero, one = np.float32(0.0), np.float32(1.0)
    sums = np.zeros((3, width), np.float32)
    reds, greens, blues = sums[0], sums[1], sums[2]
    to_red, to_green, to_blue = weight[0], weight[1], weight[2]
    for i in range(hidden.shape[0]):
        row, target = hidden[i], out[i]
        red = color_gradient[i, 0] * color[i, 0] * (one - color[i, 0])
        green = color_gradient[i, 1] * color[i, 1] * (one - color[i, 1])
        blue = color_gradient[i, 2] * color[i, 2] * (one - color[i, 2])
        for k in range(width):
            value = red * to_red[k] + green * to_green[k] + blue * to_blue[k]
            target[k] = value if row[k] > zero else zero
        if not trained:
            continue
        for k in range(width):
            value = max(row[k], zero)
            reds[k] += red * value
            greens[k] += green * value
            blues[k] += blue * value
        if i % BLOCK == BLOCK - 1 or i == hidden.shape[0] - 1:
            for j in range(3):
                for k in range(width):
                    weight_gradient[j, k] += sums[j, k]
                    sums[j, k] = 0


@kernel
def relu_backward(hidden, ray, trained, gradient, term_gradient):
    """Zero ``gradient`` [N, K] where ``hidden`` is 0; if ``trained``, add it to
    ``term_gradient[ray]`` [R, K]."""
    width = hidden.shape[1]
    zero = np.float32(0.0)
    for i in range(hidden.shape[0]):
        row, values = hidden[i], gradient[i]
        for k in range(width):
            values[k] = values[k] if row[k] > zero else zero
        if trained:
            total = term_gradient[ray[i]]
            for k in range(width):
                total[k] += values[k]


@kernel
def density_head_backward(
    wide,
    column,
    gradient,
    weight,
    exponent,
    density_gradient,
    trained,
    out,
    bias_gradient,
    weight_gradient,
):
    """Gradient before the softplus.

    Args:
        wide: softplus values in ``wide[:, column:]``. gradient: theirs, same columns [N, D + K].
        weight: of the density output, [K]. exponent: its value, [N].
        density_gradient: [N].
        out: into [N, K]. If ``trained``, bias_gradient [K] is added to; weight_gradient [K + 1]
            too, the last being the offset's.
    """
    width = out.shape[1]
    one = np.float32(1.0)
    sums = np.zeros((2, width), np.float32)
    to_bias, to_weight = sums[0], sums[1]
    slopes = 0.0
    for i in range(out.shape[0]):
        bounded = min(max(exponent[i], -_GRADIENT_CAP), _GRADIENT_CAP)
        slope = density_gradient[i] * np.float32(math.exp(bounded))
        row, incoming = wide[i, column : column + width], gradient[i, column : column + width]
        target = out[i]
        for k in range(width):
            activation = row[k]
            # The derivative of softplus is the sigmoid, 1 − exp(−softplus).
            value = (incoming[k] + slope * weight[k]) * (one - fast_exp(-activation))
            target[k] = value
        if not trained:
            continue
        for k in range(width):
            to_bias[k] += target[k]
            to_weight[k] += slope * row[k]
        slopes += slope
        if i % BLOCK == BLOCK - 1 or i == out.shape[0] - 1:
            for k in range(width):
                bias_gradient[k] += to_bias[k]
                weight_gradient[k] += to_weight[k]
                to_bias[k] = 0
                to_weight[k] = 0
    if trained:
        weight_gradient[width] += np.float32(slopes)
