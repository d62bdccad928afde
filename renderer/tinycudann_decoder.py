"""The shared decoder on tiny-cuda-nn's fused networks (an optional package, GPU only).

Legend: S samples, C channels, K hidden width.

The weights are the decoder's own, rearranged, and convert back without loss. tiny-cuda-nn's fused
networks know no biases, pad inputs and outputs to multiples of 16, and have a softplus of their
own, log(1 + exp(10·x)) / 10; so the first bias becomes the weights of an input that is always 1,
the second is added afterwards, and the scale 10 moves into the layers around the softplus.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderer.decoder import TriplaneDecoder, frequency_encode, truncated_exp
from runtime.errors import UserError

ALIGNMENT = 16
SOFTPLUS_SCALE = 10.0
WIDTHS = (16, 32, 64, 128)


def load_tinycudann() -> ModuleType:
    """The package ``tinycudann``.

    Raises:
        UserError: if it is not installed or finds no GPU; says how to get it.
    """
    try:
        return importlib.import_module("tinycudann")
    except ImportError as error:
        raise UserError(
            f"the tiny-cuda-nn decoder needs the package tinycudann ({error}); build it on the "
            "machine with the GPU: pip install ninja && pip install --no-build-isolation "
            "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"
        ) from None
    except OSError as error:
        raise UserError(f"tinycudann is installed but cannot start: {error}") from None


def aligned(size: int) -> int:
    """``size`` rounded up to what tiny-cuda-nn pads to."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def pack(layers: list[Tensor]) -> Tensor:
    """Weights [out, in] of a network's layers as its flat parameters, fp32.

    The first layer's inputs and the last one's outputs are padded with zeros; layers follow each
    other, each row by row.
    """
    padded = [layer.detach().float() for layer in layers]
    first, last = padded[0], padded[-1]
    padded[0] = F.pad(first, (0, aligned(first.shape[1]) - first.shape[1]))
    padded[-1] = F.pad(last, (0, 0, 0, aligned(last.shape[0]) - last.shape[0]))
    return torch.cat([layer.reshape(-1) for layer in padded])


def unpack(flat: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """Inverse of :func:`pack`; ``shapes`` are the layers' own, without padding.

    Raises:
        ValueError: if ``flat`` has another length than those layers take.
    """
    last = len(shapes) - 1
    stored = [
        (aligned(rows) if index == last else rows, aligned(columns) if index == 0 else columns)
        for index, (rows, columns) in enumerate(shapes)
    ]
    sizes = [rows * columns for rows, columns in stored]
    if sum(sizes) != flat.numel():
        raise ValueError(f"{flat.numel()} parameters do not fit layers of {sum(sizes)}")
    return [
        part.reshape(padded)[:rows, :columns]
        for part, padded, (rows, columns) in zip(flat.split(sizes), stored, shapes, strict=True)
    ]


def density_layers(decoder: TriplaneDecoder) -> list[Tensor]:
    """The density network's two matrices as tiny-cuda-nn computes with them."""
    first = torch.cat([decoder.density_in.weight, decoder.density_in.bias[:, None]], dim=1)
    return [first / SOFTPLUS_SCALE, decoder.density_out.weight * SOFTPLUS_SCALE]


def color_layers(decoder: TriplaneDecoder) -> list[Tensor]:
    """The colour network's three matrices."""
    return [decoder.color_in.weight, decoder.color_hidden.weight, decoder.color_out.weight]


class TinyCudaDecoder(nn.Module):
    """Same function as :class:`TriplaneDecoder`, within half precision, and trainable.

    Args:
        decoder: whose configuration and weights to take; its hidden width must be 16, 32, 64 or
            128.

    Raises:
        UserError: if tinycudann is not installed, or the width is another.
    """

    def __init__(self, decoder: TriplaneDecoder):
        super().__init__()
        hidden = decoder.density_in.weight.shape[0]
        if hidden not in WIDTHS:
            raise UserError(
                f"tiny-cuda-nn's fused networks are {', '.join(map(str, WIDTHS))} wide, this "
                f"decoder {hidden}: use the renderer's own implementation"
            )
        package = load_tinycudann()
        self.config = dict(decoder.config)
        self.color_channels = decoder.color_channels
        self.frequencies = decoder.frequencies
        density, color = density_layers(decoder), color_layers(decoder)
        self._density_shapes = [(w.shape[0], w.shape[1]) for w in density]
        self._color_shapes = [(w.shape[0], w.shape[1]) for w in color]

        def network(layers: list[Tensor], activation: str, output: str) -> nn.Module:
            return package.Network(
                n_input_dims=layers[0].shape[1],
                n_output_dims=layers[-1].shape[0],
                network_config={
                    "otype": "FullyFusedMLP",
                    "activation": activation,
                    "output_activation": output,
                    "n_neurons": hidden,
                    "n_hidden_layers": len(layers) - 1,
                },
            )

        self.density_network = network(density, "Softplus", "None")
        self.color_network = network(color, "ReLU", "Sigmoid")
        self.density_bias = nn.Parameter(decoder.density_out.bias.detach().float().clone())
        with torch.no_grad():
            self.density_network.params.copy_(pack(density))
            self.color_network.params.copy_(pack(color))

    @torch.no_grad()
    def to_decoder(self) -> TriplaneDecoder:
        """The weights as they are now, in the stored form; on the CPU."""
        decoder = TriplaneDecoder(
            **{k: self.config[k] for k in ("channels", "color_channels", "hidden", "frequencies")}
        )
        first, second = unpack(self.density_network.params.float().cpu(), self._density_shapes)
        decoder.density_in.weight.copy_(first[:, :-1] * SOFTPLUS_SCALE)
        decoder.density_in.bias.copy_(first[:, -1] * SOFTPLUS_SCALE)
        decoder.density_out.weight.copy_(second / SOFTPLUS_SCALE)
        decoder.density_out.bias.copy_(self.density_bias.cpu())
        color = unpack(self.color_network.params.float().cpu(), self._color_shapes)
        for layer, weight in zip(
            (decoder.color_in, decoder.color_hidden, decoder.color_out), color, strict=True
        ):
            layer.weight.copy_(weight)
        return decoder

    def density(self, features: Tensor) -> Tensor:
        """Density σ per world unit, [S], from features [S, C]; skips all colour work."""
        return truncated_exp(self._density_outputs(features)[:, 0])

    def forward(self, features: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Density [S] and colour [S, 3]; see :meth:`TriplaneDecoder.forward`."""
        out = self._density_outputs(features)
        color = torch.cat(
            [
                frequency_encode(features[:, : self.color_channels], self.frequencies),
                frequency_encode(directions, self.frequencies),
                out[:, 1:],
            ],
            dim=-1,
        )
        return truncated_exp(out[:, 0]), self.color_network(color).float()

    def _density_outputs(self, features: Tensor) -> Tensor:
        encoded = frequency_encode(features[:, self.color_channels :], self.frequencies)
        one = encoded.new_ones(encoded.shape[0], 1)
        return self.density_network(torch.cat([encoded, one], dim=-1)).float() + self.density_bias
