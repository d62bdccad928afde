"""The decoder's weights as the kernels read them: folded, padded, one vector.

Nothing nonlinear lies between the density network's second layer and the colour network's first,
so their matrices multiply out, and the kernels have one layer less. All of it is differentiable
PyTorch on small matrices: the kernels' gradient of the packed vector reaches the decoder's own
parameters through here.

Legend: E inputs, N hidden width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from renderer.cuda.field.layout import HEAD, LOGIT, DecoderShape
from renderer.decoder import TriplaneDecoder


def pack_decoder(decoder: TriplaneDecoder) -> tuple[Tensor, Tensor]:
    """Weights and the bias of log density.

    Returns:
        The packed weights [DecoderShape.weights] fp32, each matrix [in, out] row major, in the
        order of ``kernels/layout.cuh``; and the bias [1]. Differentiable to the parameters.
    """
    # Products of half precision, which autocast would make them, are too coarse here.
    with torch.autocast(decoder.density_in.weight.device.type, enabled=False):
        return _fold_and_pack(decoder)


def _fold_and_pack(decoder: TriplaneDecoder) -> tuple[Tensor, Tensor]:
    shape = DecoderShape.of(decoder)
    width = shape.hidden
    density = torch.cat([decoder.density_in.weight.T, decoder.density_in.bias[None]])
    density = _pad(density, shape.density_in, width)
    color_in = decoder.color_in.weight
    direct = (shape.color_channels + 3) * shape.encoded
    from_geometry = color_in[:, direct:]
    # geometry = density_out.weight[1:] · h + density_out.bias[1:]
    folded = (from_geometry @ decoder.density_out.weight[1:]).T
    constant = from_geometry @ decoder.density_out.bias[1:]
    logit = F.pad(decoder.density_out.weight[:1].T, (LOGIT, HEAD - LOGIT - 1))
    geometry = torch.cat([folded, logit], dim=1)
    color = _pad(torch.cat([color_in[:, :direct].T, constant[None]]), shape.color_in, width)
    out = _pad(decoder.color_out.weight.T, width, HEAD)
    parts = [density, geometry, color, decoder.color_hidden.weight.T, out]
    return torch.cat([part.float().reshape(-1) for part in parts]), decoder.density_out.bias[:1]


def _pad(matrix: Tensor, rows: int, columns: int) -> Tensor:
    return F.pad(matrix, (0, columns - matrix.shape[1], 0, rows - matrix.shape[0]))
