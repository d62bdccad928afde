"""Small networks that stand in for those of the metrics, in the file formats these come in."""

import struct
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StandInInception(nn.Module):
    """Means of an 8×8 grid of a picture in 0..255; like FID's, probabilities if not told."""

    def forward(self, pictures: Tensor, return_features: bool = False) -> Tensor:
        pooled = F.adaptive_avg_pool2d(pictures, 2).flatten(1) / 255
        if return_features:
            return pooled
        return pooled.softmax(dim=1)


def write_torchscript(path: Path, module: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(path))
    return path


def _field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol-buffers message (numbers below 128 only)."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    data = value.encode() if isinstance(value, str) else value
    size, head = len(data), b""
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + head + bytes([size]) + data


def _shape(name: str, sizes: list[int]) -> bytes:
    dims = b"".join(_field(1, _field(1, size)) for size in sizes)
    tensor = _field(1, 1) + _field(2, dims)
    return _field(1, name) + _field(2, _field(1, tensor))


def write_onnx(path: Path, mixing: Tensor) -> Path:
    """The means of the three colours times a matrix [3, D]: Flatten(GlobalAveragePool(x)) @ M."""
    values = b"".join(struct.pack("<f", float(value)) for value in mixing.flatten())
    rows, columns = mixing.shape
    matrix = _field(1, rows) + _field(1, columns) + _field(2, 1) + _field(8, "m")
    nodes = [
        _field(1, "x") + _field(2, "p") + _field(4, "GlobalAveragePool"),
        _field(1, "p") + _field(2, "f") + _field(4, "Flatten"),
        _field(1, "f") + _field(1, "m") + _field(2, "y") + _field(4, "MatMul"),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "g")
    graph += _field(5, matrix + _field(9, values))
    graph += _field(11, _shape("x", [1, 3, 112, 112])) + _field(12, _shape("y", [1, columns]))
    opset = _field(1, "") + _field(2, 13)
    path.write_bytes(_field(1, 8) + _field(7, graph) + _field(8, opset))
    return path


def write_clip(folder: Path) -> Path:
    """A CLIP model of random weights with everything that a fetched one has for pictures."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision = {**small, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    text = {**small, "num_attention_heads": 2, "vocab_size": 50}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**sizes).save_pretrained(folder)
    return folder
