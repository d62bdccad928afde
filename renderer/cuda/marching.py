"""Ray marching on the GPU: the same samples as :func:`renderer.marching.march`.

Legend: B triplanes, G cells along one side of a grid, R rays, S samples.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from renderer.cuda.library import operation
from renderer.cuda.modules import check_count, check_tensor, load_module
from renderer.samples import Samples, step_length

_BLOCK = 128
_WARPS = _BLOCK // 32
_NO_MACROS: dict[str, int] = {}


class Rays(ctypes.Structure):
    _fields_ = [
        ("origins", ctypes.c_void_p),
        ("directions", ctypes.c_void_p),
        ("jitter", ctypes.c_void_p),
        ("triplane", ctypes.c_void_p),
        ("count", ctypes.c_int),
    ]


class Lattice(ctypes.Structure):
    _fields_ = [
        ("step", ctypes.c_float),
        ("near", ctypes.c_float),
        ("tiny", ctypes.c_float),
        ("steps", ctypes.c_int),
        ("cells", ctypes.c_int),
    ]


@dataclass(frozen=True)
class PackedSamples:
    """Samples as the kernels store them: 8 bytes each, positions are made where they are used.

    Attributes:
        ray: [S] int32, non-decreasing.
        t: [S] fp32, world units.
        offsets: first sample of each ray, [R + 1] int32.
        step: distance between neighbouring samples, world units.
    """

    ray: Tensor
    t: Tensor
    offsets: Tensor
    step: float

    def __len__(self) -> int:
        return self.t.shape[0]

    @property
    def rays(self) -> int:
        return self.offsets.shape[0] - 1

    def unpacked(self) -> Samples:
        """With int64 indices, as PyTorch's indexing needs them."""
        return Samples(self.ray.long(), self.t, self.offsets.long(), self.step)

    @classmethod
    def packed(cls, samples: Samples) -> PackedSamples:
        """From the plain form."""
        return cls(
            samples.ray.int().contiguous(),
            samples.t.detach().float().contiguous(),
            samples.offsets.int().contiguous(),
            samples.step,
        )


def pack_occupancy(occupied: Tensor) -> Tensor:
    """Occupied cells as bits.

    Args:
        occupied: [B, G, G, G] or [G, G, G] bool.

    Returns:
        [B, ⌈G³ / 32⌉] int32.
    """
    return _pack_occupancy(occupied)


def _fake_pack(occupied):
    cells = occupied.shape[-1] ** 3
    grids = occupied.numel() // cells
    return occupied.new_empty(grids, (cells + 31) // 32, dtype=torch.int32)


@operation("pack_occupancy", "(Tensor occupied) -> Tensor", fake=_fake_pack)
def _pack_occupancy(occupied):
    grids = occupied.reshape(-1, occupied.shape[-1] ** 3).contiguous()
    count, bits = grids.shape[1], _fake_pack(occupied)
    module = load_module("march.cu", _NO_MACROS, occupied.device)
    for one, out in zip(grids, bits, strict=True):
        module.launch("pack_bits", [(count + _BLOCK - 1) // _BLOCK], _BLOCK, 0, [one, out, count])
    return bits


def march_packed(
    origins: Tensor,
    directions: Tensor,
    bits: Tensor,
    cells: int,
    *,
    steps: int = 1024,
    near: float = 0.2,
    jitter: Tensor | None = None,
    triplane: Tensor | None = None,
) -> PackedSamples:
    """Place samples at ``entry + (i + u) · step`` for every i that falls in an occupied cell.

    Args:
        origins, directions: [R, 3]; directions have unit length.
        bits: occupied cells of each triplane, from :func:`pack_occupancy`.
        cells: G.
        steps: samples along the box's diagonal.
        near: no sample lies closer to the origin, world units.
        jitter: u of each ray in [0, 1), [R]; 0.5 without.
        triplane: which triplane each ray looks at, [R] int32 in [0, B); the first without.

    Returns:
        Packed samples; not differentiable. Waits for the GPU once, to learn their number.
    """
    device = origins.device
    rays = origins.shape[0]
    origins = check_tensor("origins", origins, (rays, 3), device)
    directions = check_tensor("directions", directions, (rays, 3), device)
    if jitter is not None:
        jitter = check_tensor("jitter", jitter, (rays,), device)
    if triplane is None and bits.shape[0] > 1:
        raise ValueError(f"{bits.shape[0]} triplanes: say which one each ray looks at")
    if triplane is not None and (triplane.shape != (rays,) or triplane.dtype != torch.int32):
        raise ValueError(f"triplane must be int32 [R={rays}], got {list(triplane.shape)}")
    given = origins, directions, bits, cells, steps, float(near), jitter, triplane
    return PackedSamples(*_march(*given), step_length(steps))


def fake_samples(like: Tensor, rays: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ray, distance and offsets of an unknown number of samples, for operations' fake results."""
    total = torch.library.get_ctx().new_dynamic_size()
    return (
        like.new_empty(total, dtype=torch.int32),
        like.new_empty(total, dtype=torch.float32),
        like.new_empty(rays + 1, dtype=torch.int32),
    )


@operation(
    "march",
    "(Tensor origins, Tensor directions, Tensor bits, int cells, int steps, float near, "
    "Tensor? jitter, Tensor? triplane) -> (Tensor, Tensor, Tensor)",
    fake=lambda origins, *rest: fake_samples(origins, origins.shape[0]),
)
def _march(origins, directions, bits, cells, steps, near, jitter, triplane):
    """Ray [S] int32, distance [S] and offsets [R + 1] int32 of the samples."""
    device, rays = origins.device, origins.shape[0]
    given = Rays(
        origins.data_ptr(),
        directions.data_ptr(),
        None if jitter is None else jitter.data_ptr(),
        None if triplane is None else triplane.data_ptr(),
        rays,
    )
    tiny = torch.finfo(torch.float32).tiny ** 0.5
    lattice = Lattice(step_length(steps), near, tiny, steps, cells)
    module = load_module("march.cu", _NO_MACROS, device)
    grid = [(rays + _WARPS - 1) // _WARPS]
    counts = torch.empty(rays, dtype=torch.int32, device=device)
    module.launch("march_count", grid, _BLOCK, 0, [given, lattice, bits, counts])
    offsets, total = scan(counts)
    ray = torch.empty(total, dtype=torch.int32, device=device)
    t = torch.empty(total, dtype=torch.float32, device=device)
    module.launch("march_write", grid, _BLOCK, 0, [given, lattice, bits, offsets, ray, t])
    return ray, t, offsets


def scan(counts: Tensor) -> tuple[Tensor, int]:
    """Counts [R] to offsets [R + 1] and the total.

    Raises:
        ValueError: if there are too many for one call.
    """
    sums = counts.cumsum(0, dtype=torch.int64)
    total = int(sums[-1]) if counts.numel() else 0
    check_count(total)
    return torch.cat([sums.new_zeros(1), sums]).int(), total
