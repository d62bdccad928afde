"""Triplanes: one place for their layout, range, sampling, resizing and files.

Legend: B batch, P = 3 planes, C channels, H W plane size, S points.

A triplane is ``[B, P, C, H, W]`` with values in [-1, 1]. Its planes are (x, y), (x, z), (y, z);
the first coordinate runs along W, the second along H. The box is [-1, 1]³ and the outermost
texels lie on its faces (bilinear, ``align_corners=True``). A point's feature is the mean over
the three planes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.errors import UserError
from runtime.files import atomic_path, check_file
from runtime.formats.tensor_files import (
    FLOATS,
    load_metadata,
    load_tensors,
    parse_tensors,
    save_tensors,
)

PLANE_ORDER = ("xy", "xz", "yz")
AXIS_ORDER = "P C H W"
DTYPES = ("float16", "uint8")
"""How a file may keep the values."""
MOST_VALUES = 2**28
"""Of one triplane: in fp32 that is 1 GiB."""
# Coordinates (W, H) of each plane, as indices into (x, y, z).
PLANE_AXES = ((0, 1), (0, 2), (1, 2))


def check_planes(planes: Tensor, *, batched: bool = True) -> None:
    """Raise ``ValueError`` unless ``planes`` is [B, 3, C, H, W] (or [3, C, H, W])."""
    rank = 5 if batched else 4
    if planes.ndim != rank or planes.shape[-4] != 3:
        expected = "[B, 3, C, H, W]" if batched else "[3, C, H, W]"
        raise ValueError(f"planes must be {expected}, got {list(planes.shape)}")


def rollout(planes: Tensor) -> Tensor:
    """[B, 3, C, H, W] → [B, C, H, 3·W]: the three planes side by side."""
    check_planes(planes)
    b, p, c, h, w = planes.shape
    return planes.permute(0, 2, 3, 1, 4).reshape(b, c, h, p * w)


def unroll(image: Tensor) -> Tensor:
    """[B, C, H, 3·W] → [B, 3, C, H, W]; inverse of :func:`rollout`."""
    if image.ndim != 4 or image.shape[-1] % 3:
        raise ValueError(f"a roll-out must be [B, C, H, 3·W], got {list(image.shape)}")
    b, c, h, w = image.shape
    return image.reshape(b, c, h, 3, w // 3).permute(0, 3, 1, 2, 4)


def mirror_planes(planes: Tensor) -> Tensor:
    """The triplane [..., 3, C, H, W] of the mirrored world, x → −x; its own inverse.

    Exact for a decoder that does not look at the view's direction.
    """
    return torch.stack(
        [
            plane.flip(-1) if axes[0] == 0 else plane
            for plane, axes in zip(planes.unbind(-4), PLANE_AXES, strict=True)
        ],
        dim=-4,
    )


def resize_planes(planes: Tensor, size: int) -> Tensor:
    """Resize [B, 3, C, H, W] to ``size`` × ``size``, antialiased when it shrinks.

    Linear interpolation keeps values inside their range. The box's faces lie on the outermost
    texels (``align_corners=True``); antialiased filters assume texel areas instead, so shrinking
    first filters at full size and then resamples on the corner-aligned lattice.
    """
    check_planes(planes)
    b, p, c, h, w = planes.shape
    if (h, w) == (size, size):
        return planes
    flat = planes.reshape(b * p, c, h, w)
    factor = max(h, w) / size
    if factor > 1:
        flat = _triangle_blur(flat, factor)
    flat = F.interpolate(flat, (size, size), mode="bilinear", align_corners=True)
    return flat.reshape(b, p, c, size, size)


def _triangle_blur(x: Tensor, factor: float) -> Tensor:
    """Separable triangle filter, the antialiasing kernel of a bilinear resize by ``factor``.

    Edges count only the texels that exist, so a constant stays constant.
    """
    radius = int(np.ceil(factor)) - 1
    if radius < 1:
        return x
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = (1 - offsets.abs() / factor).clamp(min=0)
    channels = x.shape[1]
    weight = kernel.expand(channels, 1, 1, -1)
    for dim in (-1, -2):
        shape = weight if dim == -1 else weight.transpose(-1, -2)
        padding = (0, radius) if dim == -1 else (radius, 0)
        total = F.conv2d(torch.ones_like(x[:1, :1]), shape[:1], padding=padding)
        x = F.conv2d(x, shape, padding=padding, groups=channels) / total
    return x


def sample_planes(planes: Tensor, points: Tensor) -> Tensor:
    """Features at points inside the box.

    Args:
        planes: one triplane, [3, C, H, W].
        points: [S, 3] in [-1, 1]; points outside take the value at the nearest face.

    Returns:
        [S, C], the mean over the three planes. Differentiable to planes and points.
    """
    check_planes(planes, batched=False)
    grid = torch.stack([points[:, list(axes)] for axes in PLANE_AXES])[:, None]  # [3, 1, S, 2]
    values = F.grid_sample(
        planes, grid, mode="bilinear", padding_mode="border", align_corners=True
    )  # [3, C, 1, S]
    return values[:, :, 0].mean(dim=0).T


def shrink_planes(planes: Tensor, size: int) -> Tensor:
    """One triplane [3, C, H, W] at ``size``, rounded as a file keeps it, fp32.

    Resizing while training and reading a set resized before (``triavatar triplanes downsample``)
    thus give the same numbers.
    """
    check_planes(planes, batched=False)
    return resize_planes(planes[None], size)[0].half().float()


def quantize(planes: Tensor) -> dict[str, Tensor]:
    """8 bits a value: [3, C, H, W] → ``planes`` uint8, ``scale`` and ``offset`` fp32 [3, C].

    A value is offset + scale · code; every channel of every plane spreads its own range over the
    256 codes, so the error is at most half of 1/255 of that range.
    """
    flat = planes.float().flatten(2)
    offset, top = flat.amin(dim=2), flat.amax(dim=2)
    scale = (top - offset) / 255
    divisor = torch.where(scale > 0, scale, 1)[..., None, None]
    codes = ((planes.float() - offset[..., None, None]) / divisor).round().clamp(0, 255)
    return {"planes": codes.to(torch.uint8), "scale": scale, "offset": offset}


def dequantize(codes: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Inverse of :func:`quantize`, fp32 [3, C, H, W]."""
    return offset[..., None, None] + scale[..., None, None] * codes.float()


def save_triplane(
    path: Path | str,
    planes: Tensor,
    metadata: dict[str, str] | None = None,
    dtype: str = "float16",
) -> None:
    """Write one triplane [3, C, H, W], clamped to [-1, 1].

    A path ending in ``.npy`` writes the published layout [3, 1, C, H, W] in fp32, any other
    writes safetensors: ``dtype`` "float16", or "uint8" (:func:`quantize`). The write is atomic.

    Raises:
        UserError: if a value is NaN or infinite; nothing is written.
    """
    path = Path(path)
    check_planes(planes, batched=False)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    if not torch.isfinite(planes).all():
        raise UserError(f"refusing to save a triplane with NaN or infinite values to {path}")
    planes = planes.detach().cpu().clamp(-1, 1)
    if path.suffix == ".npy":
        with atomic_path(path) as temporary:
            np.save(temporary, planes.float().numpy()[:, None])
        return
    tensors = quantize(planes) if dtype == "uint8" else {"planes": planes.half()}
    save_tensors(path, tensors, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """The strings that a triplane's file keeps beside it, such as ``decoder_hash``."""
    return load_metadata(path)


def load_triplane(
    path: Path | str,
    shape: tuple[int, int, int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Read one triplane [3, C, H, W] with values in [-1, 1].

    Reads safetensors (fp16, or 8 bits with a scale) and the published ``.npy`` layout
    [3, 1, C, H, W] (whose files may be unclamped: they are clamped as their renderer does).

    Args:
        shape: that it must have; of any otherwise.
        dtype: of the result.

    Raises:
        UserError: if the file is missing, unreadable, of another shape or holds NaN.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return _checked(torch.from_numpy(_read_npy(path)), path, shape, dtype)
    wanted = {"planes": shape or (3, None, None, None)}
    tensors, _ = load_tensors(path, wanted, kinds={"planes": (*FLOATS, "U8")})
    return _checked(_values(tensors, path), path, shape, dtype)


def parse_triplane(
    data: bytes, path: Path, shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, dict[str, str]]:
    """Read a triplane's safetensors file from memory, as `load_triplane` does, and its strings.

    Args:
        data: content of the file.
        path: where it came from, for messages.
    """
    tensors, metadata = parse_tensors(data, path)
    if "planes" not in tensors:
        raise UserError(f"{path} holds no tensor named 'planes'; it is another kind of file.")
    return _checked(_values(tensors, path), path, shape, dtype), metadata


def _values(tensors: dict[str, Tensor], path: Path) -> Tensor:
    planes = tensors["planes"]
    return _dequantized(tensors, path) if planes.dtype == torch.uint8 else planes


def _checked(
    planes: Tensor, path: Path, shape: tuple[int, int, int, int] | None, dtype: torch.dtype
) -> Tensor:
    if planes.ndim != 4 or planes.shape[0] != 3 or planes.shape[-1] != planes.shape[-2]:
        raise UserError(f"{path} holds shape {list(planes.shape)}, expected [3, C, H, H]")
    if planes.numel() == 0 or shape is not None and tuple(planes.shape) != shape:
        raise UserError(f"{path} holds shape {list(planes.shape)}, expected {list(shape or ())}")
    if not torch.isfinite(planes).all():
        raise UserError(f"{path} holds NaN or infinite values; fit or sample it again")
    return planes.to(dtype).clamp(-1, 1)


def _read_npy(path: Path) -> np.ndarray:
    """The published layout, fp32 [3, C, H, W]; nothing is read before its header is known."""
    check_file(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (MemoryError, PermissionError):
        raise
    except Exception:
        raise UserError(f"{path} is not a readable .npy triplane; export it again") from None
    if array.ndim == 5 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 4 or array.dtype.kind != "f" or array.size > MOST_VALUES:
        raise UserError(
            f"{path} holds {array.dtype.name} of shape {list(array.shape)}, expected numbers of "
            "shape [3, 1, C, H, H]"
        )
    return np.array(array, dtype=np.float32)


def _dequantized(tensors: dict[str, Tensor], path: Path) -> Tensor:
    codes = tensors["planes"]
    scale, offset = tensors.get("scale"), tensors.get("offset")
    fits = [x is not None and x.shape == codes.shape[:2] for x in (scale, offset)]
    if scale is None or offset is None or not all(fits):
        raise UserError(
            f"{path} holds 8-bit planes without a scale and an offset for each channel; "
            "make it again"
        )
    return dequantize(codes, scale, offset)
