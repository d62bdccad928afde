"""The decoder over chunks of samples small enough for a core's cache, forward and backward.

Legend: N samples of a chunk, S all samples, R rays, B triplanes, C channels, K hidden width,
E columns of the encoded density channels, D of the encoded colour channels.

No nonlinearity lies between the density network's second layer and the colour network's first, so
their matrices are multiplied beforehand (:func:`renderer.cpu.field.fold`), and what depends on
the direction alone is computed once per ray. Activations are kept for the backward pass while
they are few, and computed again otherwise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from renderer.cpu import layers, sampling
from renderer.cpu.buffers import CHUNK, Activations, Buffer, Parameters, Places


class ChunkRunner:
    """One worker's buffers and products.

    Args:
        parameters: detached, contiguous.
        places: of all samples.
        color_channels, frequencies: of the decoder.
    """

    def __init__(
        self, parameters: Parameters, places: Places, color_channels: int, frequencies: int
    ):
        self.parameters, self.places = parameters, places
        self.arrays = Parameters(*(p.numpy() for p in parameters))  # type: ignore[arg-type]
        self.color_channels, self.frequencies = color_channels, frequencies
        hidden, density = parameters.density_in.shape
        self.column = color_channels * (1 + 2 * frequencies)  # D
        self.widths = (density, self.column + hidden, hidden)
        self.hidden = Buffer(hidden)
        self.adopt(Activations(self.widths))

    def adopt(self, activations: Activations) -> None:
        """Compute into, or go back from, these buffers from now on."""
        self.density_encoded, self.wide = activations.density_encoded, activations.wide
        self.first, self.second = activations.first, activations.second
        self.exponent = activations.exponent

    def density(self, low: int, high: int, out: np.ndarray) -> None:
        """Density of samples ``low … high`` into ``out`` [N]."""
        encoded, encoded_array = self.density_encoded.rows(high - low)
        sampling.encode_density(
            self.arrays.planes,
            *self.places.at(slice(low, high)),
            self.color_channels,
            self.frequencies,
            encoded_array,
        )
        self.density_of_encoded(high - low, out)

    def density_of_encoded(self, count: int, out: np.ndarray) -> None:
        """Density [N] of the first ``count`` rows of ``density_encoded``."""
        hidden, hidden_array = self.hidden.rows(count)
        torch.mm(self.density_encoded.rows(count)[0], self.parameters.density_in.T, out=hidden)
        a = self.arrays
        layers.density_head(
            hidden_array, a.density_bias, a.density_out, np.float32(a.density_offset[0]), out
        )

    def forward(self, low: int, high: int, color: np.ndarray) -> None:
        """Colour of samples ``low … high`` into ``color`` [N, 3]; activations stay in buffers.

        ``exponent`` holds the density's logarithm.
        """
        n, p, a = high - low, self.parameters, self.arrays
        wide, wide_array = self.wide.rows(n)
        first, first_array = self.first.rows(n)
        second, second_array = self.second.rows(n)
        sampling.encode_samples(
            a.planes,
            *self.places.at(slice(low, high)),
            self.color_channels,
            self.frequencies,
            wide_array,
            self.density_encoded.rows(n)[1],
        )
        self.hidden_forward(n)
        torch.mm(wide, p.color_in.T, out=first)
        layers.add_ray_term_relu(first_array, self.places.view[low:high], a.ray_term)
        torch.mm(first, p.color_hidden.T, out=second)
        layers.color_head(second_array, a.color_out, color)

    def density_of_exponent(self, out: np.ndarray) -> None:
        """Density [N] of the samples :meth:`forward` was last called for."""
        layers.bounded_exp(self.exponent[: len(out)], out)

    def hidden_forward(self, count: int) -> None:
        """Density hidden units into ``wide`` and ``exponent``, from ``density_encoded``."""
        hidden, hidden_array = self.hidden.rows(count)
        torch.mm(self.density_encoded.rows(count)[0], self.parameters.density_in.T, out=hidden)
        layers.density_head_into(
            hidden_array,
            self.arrays.density_bias,
            self.arrays.density_out,
            np.float32(self.arrays.density_offset[0]),
            self.column,
            self.wide.array[:count],
            self.exponent[:count],
        )


class GradientRunner(ChunkRunner):
    """A chunk runner that also goes backward.

    Args:
        trained: whether the decoder's gradients are wanted.
        ray_term_gradient: [R, K], added to; shared where no two workers hold the same row.

    Attributes:
        gradients: sums over this worker's samples, shaped as the parameters (``planes`` stays
            empty: :func:`renderer.cpu.sampling.scatter` makes its gradient).
    """

    def __init__(
        self,
        parameters: Parameters,
        places: Places,
        color_channels: int,
        frequencies: int,
        trained: bool,
        ray_term_gradient: Tensor,
    ):
        super().__init__(parameters, places, color_channels, frequencies)
        self.trained = trained
        self.density_encoded_gradient = Buffer(self.density_encoded.tensor.shape[1])
        self.hidden_gradient = Buffer(self.hidden.tensor.shape[1])
        self.wide_gradient = Buffer(self.wide.tensor.shape[1])
        self.first_gradient = Buffer(self.first.tensor.shape[1])
        self.second_gradient = Buffer(self.second.tensor.shape[1])
        self.color = np.empty((CHUNK, 3), np.float32)
        # The density output's weight and offset share one row: [K + 1].
        self.density_out_gradient = torch.zeros(parameters.density_out.shape[0] + 1)
        self.gradients = Parameters(
            torch.empty(0),
            torch.zeros_like(parameters.density_in),
            torch.zeros_like(parameters.density_bias),
            self.density_out_gradient[:-1],
            self.density_out_gradient[-1:],
            torch.zeros_like(parameters.color_in),
            torch.zeros_like(parameters.color_hidden),
            torch.zeros_like(parameters.color_out),
            ray_term_gradient,
        )
        self.sums = Parameters(*(g.numpy() for g in self.gradients))  # type: ignore[arg-type]

    def density_backward(
        self,
        low: int,
        high: int,
        density_gradient: np.ndarray,
        features_gradient: np.ndarray | None,
    ) -> None:
        """As :meth:`backward` where only density was computed."""
        n = high - low
        encoded, encoded_array = self.density_encoded.rows(n)
        sampling.encode_density(
            self.arrays.planes,
            *self.places.at(slice(low, high)),
            self.color_channels,
            self.frequencies,
            encoded_array,
        )
        self.hidden_forward(n)
        self.wide_gradient.array[:n, self.column :] = 0
        d_encoded_array = self.hidden_backward(n, density_gradient, features_gradient is not None)
        if features_gradient is not None:
            sampling.decode_density_gradients(
                encoded_array,
                d_encoded_array,
                self.color_channels,
                self.frequencies,
                features_gradient,
            )

    def backward(
        self,
        low: int,
        high: int,
        density_gradient: np.ndarray,
        color_gradient: np.ndarray,
        features_gradient: np.ndarray | None,
        kept: Activations | None = None,
    ) -> None:
        """Go back through the decoder for samples ``low … high``.

        Args:
            density_gradient: [N]. color_gradient: [N, 3].
            features_gradient: to the features, written into [N, C]; None when not wanted.
            kept: activations of the forward pass; computed again without them.
        """
        n, p, a = high - low, self.parameters, self.arrays
        color = self.color[:n]
        if kept is None:
            self.forward(low, high, color)
        else:
            self.adopt(kept)
            layers.color_head(self.second.rows(n)[1], a.color_out, color)
        first, first_array = self.first.rows(n)
        wide, wide_array = self.wide.rows(n)
        d_second, d_second_array = self.second_gradient.rows(n)
        d_first, d_first_array = self.first_gradient.rows(n)
        d_wide, d_wide_array = self.wide_gradient.rows(n)
        layers.color_head_backward(
            self.second.rows(n)[1],
            a.color_out,
            color,
            color_gradient,
            d_second_array,
            self.sums.color_out,
        )
        torch.mm(d_second, p.color_hidden, out=d_first)
        layers.relu_backward(
            first_array, self.places.view[low:high], d_first_array, self.sums.ray_term
        )
        torch.mm(d_first, p.color_in, out=d_wide)
        d_encoded_array = self.hidden_backward(n, density_gradient, features_gradient is not None)
        if self.trained:
            self.gradients.color_hidden.addmm_(d_second.T, first)
            self.gradients.color_in.addmm_(d_first.T, wide)
        if features_gradient is not None:
            sampling.decode_gradients(
                wide_array,
                self.density_encoded.rows(n)[1],
                d_wide_array,
                d_encoded_array,
                self.color_channels,
                self.frequencies,
                features_gradient,
            )

    def hidden_backward(
        self, count: int, density_gradient: np.ndarray, to_features: bool
    ) -> np.ndarray:
        """From density and the hidden units' gradients in ``wide_gradient`` to the encoding's."""
        hidden, hidden_array = self.hidden_gradient.rows(count)
        layers.density_head_backward(
            self.wide.array[:count],
            self.column,
            self.wide_gradient.array[:count],
            self.arrays.density_out,
            self.exponent[:count],
            density_gradient,
            hidden_array,
            self.sums.density_bias,
            self.density_out_gradient.numpy(),
        )
        if self.trained:
            encoded = self.density_encoded.rows(count)[0]
            self.gradients.density_in.addmm_(hidden.T, encoded)
        out, out_array = self.density_encoded_gradient.rows(count)
        if to_features:
            torch.mm(hidden, self.parameters.density_in, out=out)
        return out_array
