"""The shared decoder: triplane features and viewing direction to density and colour.

Legend: S samples, C channels.

Architecture (RodinHD): the last ``channels - color_channels`` channels feed the density network
E → hidden, softplus → 1 + hidden with bias; density is the exponential of the first output, the
others are geometry features. Colour channels, direction and geometry features feed a bias-free
ReLU network of two hidden layers with a sigmoid at the end. Inputs are frequency encoded.
"""

from __future__ import annotations

import hashlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from runtime.formats.module_folder import ModuleFolder

# exp(88) is the last finite fp32 exponential; 15 keeps gradients finite in half precision sums.
MAX_EXPONENT = 80.0
GRADIENT_EXPONENT = 15.0


class _Density(torch.autograd.Function):
    """exp(x) whose gradient uses an exponent clamped to ±15, so that it cannot overflow."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x.clamp(max=MAX_EXPONENT))

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.exp(x.clamp(-GRADIENT_EXPONENT, GRADIENT_EXPONENT))


def truncated_exp(x: Tensor) -> Tensor:
    """exp(x), finite for every finite x, with a gradient that cannot overflow."""
    return _Density.apply(x)


def frequency_encode(x: Tensor, frequencies: int) -> Tensor:
    """[S, D] → [S, D·(1 + 2·frequencies)]: x, then sin and cos of x·2⁰, x·2¹, …"""
    parts = [x]
    for k in range(frequencies):
        parts += [torch.sin(x * 2**k), torch.cos(x * 2**k)]
    return torch.cat(parts, dim=-1)


class TriplaneDecoder(ModuleFolder):
    """Density and colour from triplane features.

    Args:
        channels: channels C of the triplane.
        color_channels: how many of them, from the first, feed the colour network; the rest feed
            the density network.
        hidden: width of every hidden layer.
        frequencies: octaves of the frequency encoding, of features and direction alike.

    The defaults have 72,321 parameters.
    """

    def __init__(
        self, channels: int = 32, color_channels: int = 24, hidden: int = 128, frequencies: int = 2
    ):
        super().__init__()
        self.config = {
            "channels": channels,
            "color_channels": color_channels,
            "hidden": hidden,
            "frequencies": frequencies,
        }
        if not 0 < color_channels < channels:
            raise ValueError("color_channels must lie between 0 and channels, both excluded")
        self.color_channels = color_channels
        self.frequencies = frequencies
        encoded = 1 + 2 * frequencies
        self.density_in = nn.Linear((channels - color_channels) * encoded, hidden)
        self.density_out = nn.Linear(hidden, 1 + hidden)
        color_in = (color_channels + 3) * encoded + hidden
        self.color_in = nn.Linear(color_in, hidden, bias=False)
        self.color_hidden = nn.Linear(hidden, hidden, bias=False)
        self.color_out = nn.Linear(hidden, 3, bias=False)
        # torch's default shrinks the signal at every layer; without biases to make up for it,
        # colours would stay grey for long.
        for layer in (self.color_in, self.color_hidden, self.color_out):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")

    @torch.no_grad()
    def set_density(self, density: float) -> None:
        """Shift the density network's bias so that zero features have this density > 0.

        Features are centred on zero, so the shift sets the scale of all densities of a new
        decoder.
        """
        if density <= 0:
            raise ValueError(f"density must be positive, got {density}")
        bias = self.density_out.bias
        at_zero = self.density(bias.new_zeros(1, self.config["channels"]))
        bias[0] += math.log(density) - at_zero.log()[0]

    @torch.no_grad()
    def remove_view_dependence(self) -> None:
        """Zero the direction's weights: colour then depends on the place alone."""
        first = self.color_channels * (1 + 2 * self.frequencies)
        self.color_in.weight[:, first : first + 3 * (1 + 2 * self.frequencies)] = 0

    def density(self, features: Tensor) -> Tensor:
        """Density σ ≥ 0 per world unit, [S], from features [S, C]; skips all colour work."""
        hidden = self._density_hidden(features)
        first = F.linear(hidden, self.density_out.weight[:1], self.density_out.bias[:1])
        return truncated_exp(first[:, 0])

    def forward(self, features: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Density and colour.

        Args:
            features: [S, C], in [-1, 1].
            directions: unit viewing directions (from the camera into the scene), [S, 3].

        Returns:
            Density [S] per world unit and sRGB colour [S, 3] in (0, 1). Differentiable to
            features, directions and parameters.
        """
        out = self.density_out(self._density_hidden(features))
        density = truncated_exp(out[:, 0])
        color = torch.cat(
            [
                frequency_encode(features[:, : self.color_channels], self.frequencies),
                frequency_encode(directions, self.frequencies),
                out[:, 1:],
            ],
            dim=-1,
        )
        color = F.relu(self.color_in(color))
        color = F.relu(self.color_hidden(color))
        return density, torch.sigmoid(self.color_out(color))

    def _density_hidden(self, features: Tensor) -> Tensor:
        encoded = frequency_encode(features[:, self.color_channels :], self.frequencies)
        return F.softplus(self.density_in(encoded))


def decoder_hash(decoder: TriplaneDecoder) -> str:
    """SHA-256 over configuration and fp32 weights; ties a triplane to the decoder it needs."""
    digest = hashlib.sha256()
    for key in ("channels", "color_channels", "hidden", "frequencies"):
        digest.update(f"{key}={decoder.config[key]};".encode())
    for name, value in sorted(decoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
