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

from renderer.cpu.buffers import CHUNK, Activations, Buffer, Parameters
from renderer.cpu.kernels import layers, lookup
from renderer.cpu.kernels.lookup import Places


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
        # Inputs × outputs: products run faster than with the transposed view.
        self.density_in, self.color_in, self.color_hidden = (
            w.t().contiguous()
            for w in (parameters.density_in, parameters.color_in, parameters.color_hidden)
        )
        channels = self.arrays.planes.shape[3]
        self.features = np.empty((CHUNK, channels), np.float32)
        self.density_features = np.empty((CHUNK, max(0, channels - color_channels)), np.float32)
        self.own = Activations(self.widths)
        self.adopt(self.own)

    def adopt(self, activations: Activations) -> None:
        """Compute into, or go back from, these buffers from now on."""
        self.density_encoded, self.wide = activations.density_encoded, activations.wide
        self.first, self.second = activations.first, activations.second
        self.exponent = activations.exponent

    def gather(self, low: int, high: int) -> np.ndarray:
        """Features [N, C] of samples ``low … high``."""
        features = self.features[: high - low]
        lookup.gather(self.arrays.planes, self.places.at(slice(low, high)), 0, features)
        return features

    def density(self, low: int, high: int, out: np.ndarray) -> None:
        """Density alone of samples ``low … high`` into ``out`` [N]."""
        features = self.density_features[: high - low]
        place = self.places.at(slice(low, high))
        lookup.gather(self.arrays.planes, place, self.color_channels, features)
        self.density_of_features(features, 0, out)

    def density_of_features(self, features: np.ndarray, first: int, out: np.ndarray) -> None:
        """Density [N] from channels ``first …`` of features [N, K]; hidden units in ``wide``."""
        n = len(features)
        channels = features.shape[1] - first
        encoded = self.density_encoded.rows(n)[1]
        lookup.encode(features, first, channels, self.frequencies, encoded)
        self.hidden_forward(n)
        layers.bounded_exp(self.exponent[:n], out)

    def forward(self, low: int, high: int, color: np.ndarray, density: np.ndarray) -> None:
        """Colour [N, 3] and density [N] of samples; activations stay in buffers."""
        features = self.gather(low, high)
        self.density_of_features(features, self.color_channels, density)
        self.color_of_features(features, self.places.view[low:high], color)

    def color_of_features(self, features: np.ndarray, view: np.ndarray, color: np.ndarray) -> None:
        """Colour [N, 3] where ``wide`` holds the density's hidden units.

        Args:
            features: the first of their channels are the colour's, [N, K].
            view: rows of the ray term, [N].
        """
        n, a = len(color), self.arrays
        wide, wide_array = self.wide.rows(n)
        lookup.encode(features, 0, self.color_channels, self.frequencies, wide_array)
        first, first_array = self.first.rows(n)
        second, second_array = self.second.rows(n)
        torch.mm(wide, self.color_in, out=first)
        layers.add_ray_term_relu(first_array, view, a.ray_term)
        torch.mm(first, self.color_hidden, out=second)
        layers.color_head(second_array, a.color_out, color)

    def hidden_forward(self, count: int) -> None:
        """Density hidden units into ``wide`` and ``exponent``, from ``density_encoded``."""
        hidden, hidden_array = self.hidden.rows(count)
        torch.mm(self.density_encoded.rows(count)[0], self.density_in, out=hidden)
        layers.density_head(
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
            empty: :func:`renderer.cpu.kernels.lookup.scatter` makes its gradient).
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
        self.density_out = np.empty(CHUNK, np.float32)
        # The density output's weight and offset share one row: [K + 1].
        self.density_out_gradient = torch.zeros(parameters.density_out.shape[0] + 1)
        self.gradients = Parameters(
            torch.empty(0),
            torch.zeros_like(self.density_in).t(),
            torch.zeros_like(parameters.density_bias),
            self.density_out_gradient[:-1],
            self.density_out_gradient[-1:],
            torch.zeros_like(self.color_in).t(),
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
        self.adopt(self.own)
        self.density(low, high, self.density_out[:n])
        self.wide_gradient.array[:n, self.column :] = 0
        self.hidden_backward(n, density_gradient, features_gradient)
        if features_gradient is not None:
            features_gradient[:, : self.color_channels] = 0

    def backward(
        self,
        low: int,
        high: int,
        density_gradient: np.ndarray,
        color_gradient: np.ndarray,
        features_gradient: np.ndarray | None,
        kept: tuple[Activations, np.ndarray] | None = None,
    ) -> None:
        """Go back through the decoder for samples ``low … high``.

        Args:
            density_gradient: [N]. color_gradient: [N, 3].
            features_gradient: to the features, written into [N, C]; None when not wanted.
            kept: activations and colour [N, 3] of the forward pass; computed again without them.
        """
        n, p, a = high - low, self.parameters, self.arrays
        if kept is None:
            self.adopt(self.own)
            color = self.color[:n]
            self.forward(low, high, color, self.density_out[:n])
        else:
            self.adopt(kept[0])
            color = kept[1]
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
            self.trained,
            d_second_array,
            self.sums.color_out,
        )
        torch.mm(d_second, p.color_hidden, out=d_first)
        layers.relu_backward(
            first_array,
            self.places.view[low:high],
            self.trained,
            d_first_array,
            self.sums.ray_term,
        )
        torch.mm(d_first, p.color_in, out=d_wide)
        if self.trained:
            self.gradients.color_hidden.addmm_(d_second.T, first)
            # Transposed, the product is narrower in its rows and runs faster.
            self.gradients.color_in.t().addmm_(wide.T, d_first)
        self.hidden_backward(n, density_gradient, features_gradient)
        if features_gradient is not None:
            lookup.encode_backward(
                wide_array, d_wide_array, self.frequencies, 0, self.color_channels,
                features_gradient,
            )  # fmt: skip

    def hidden_backward(
        self, count: int, density_gradient: np.ndarray, features_gradient: np.ndarray | None
    ) -> None:
        """From density and the hidden units' gradients in ``wide_gradient`` to the features."""
        hidden, hidden_array = self.hidden_gradient.rows(count)
        layers.density_head_backward(
            self.wide.array[:count],
            self.column,
            self.wide_gradient.array[:count],
            self.arrays.density_out,
            self.exponent[:count],
            density_gradient,
            self.trained,
            hidden_array,
            self.sums.density_bias,
            self.density_out_gradient.numpy(),
        )
        encoded, encoded_array = self.density_encoded.rows(count)
        if self.trained:
            self.gradients.density_in.t().addmm_(encoded.T, hidden)
        if features_gradient is not None:
            out, out_array = self.density_encoded_gradient.rows(count)
            torch.mm(hidden, self.parameters.density_in, out=out)
            lookup.encode_backward(
                encoded_array, out_array, self.frequencies, self.color_channels,
                features_gradient.shape[1] - self.color_channels, features_gradient,
            )  # fmt: skip
