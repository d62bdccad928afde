"""Sizes of the field's kernels for one decoder and one card, as ``kernels/layout.cuh`` has them.

The kernels assert that both agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from renderer.decoder import TriplaneDecoder
from runtime.errors import UserError

HEAD = 16
LOGIT = 3
_SKEW = 8
_STRIP, _STEP = 128, 32

# Shared memory one block may have, in bytes, by compute capability.
_SHARED_LIMITS = {70: 98304, 72: 98304, 75: 65536, 80: 166912, 87: 166912, 90: 232448}
_SHARED_LIMITS |= {86: 101376, 89: 101376, 120: 101376, 121: 101376}
_SHARED_LIMITS |= {100: 232448, 101: 232448, 103: 232448, 110: 232448}

# What A100, H100 and their successors have at least.
_LARGE = 160 * 1024


def shared_limit(capability: int) -> int:
    """Shared memory one block may have, in bytes; a cautious figure for unknown cards."""
    return _SHARED_LIMITS.get(capability, 101376)


def _round16(value: int) -> int:
    return (value + 15) // 16 * 16


@dataclass(frozen=True)
class DecoderShape:
    """A decoder's sizes.

    Attributes:
        channels, color_channels, hidden, frequencies: as in the decoder's configuration.
    """

    channels: int
    color_channels: int
    hidden: int
    frequencies: int

    @classmethod
    def of(cls, decoder: TriplaneDecoder) -> DecoderShape:
        """A decoder's shape.

        Raises:
            UserError: if the kernels do not cover it; says what they need.
        """
        config = decoder.config
        shape = cls(
            config["channels"], config["color_channels"], config["hidden"], config["frequencies"]
        )
        if shape.channels % 4 or shape.color_channels % 4:
            raise UserError(
                f"the CUDA kernels need channels ({shape.channels}) and color_channels "
                f"({shape.color_channels}) to be multiples of 4; use impl='torch' or 'auto'"
            )
        if shape.hidden not in (32, 64, 128):
            raise UserError(
                f"the CUDA kernels need hidden = 32, 64 or 128, not {shape.hidden}; "
                "use impl='torch' or 'auto'"
            )
        if shape.density_in > max(shape.hidden, 16) or shape.channels > 128:
            raise UserError(
                f"the CUDA kernels hold at most {shape.hidden} density encodings and 128 channels, "
                f"not {shape.density_in} and {shape.channels}; use impl='torch' or 'auto'"
            )
        return shape

    @property
    def encoded(self) -> int:
        return 1 + 2 * self.frequencies

    @property
    def density_in(self) -> int:
        """Inputs of the density network: encodings and a constant, padded."""
        return _round16((self.channels - self.color_channels) * self.encoded + 1)

    @property
    def color_in(self) -> int:
        """Inputs of the colour network besides geometry: colour, direction, constant, padded."""
        return _round16((self.color_channels + 3) * self.encoded + 1)

    @property
    def weights(self) -> int:
        """Length of the packed weights."""
        hidden = self.hidden
        return (
            (self.density_in + self.color_in + hidden) * hidden
            + hidden * (hidden + HEAD)
            + hidden * HEAD
        )

    @property
    def inputs(self) -> int:
        """Halves that the backward pass keeps of a sample's layer inputs."""
        return self.density_in + self.color_in + 3 * self.hidden

    @property
    def gradients(self) -> int:
        """Halves that the backward pass keeps of a sample's layer gradients."""
        return 3 * self.hidden + HEAD


@dataclass(frozen=True)
class FieldLayout:
    """Layout of the field's kernels for one decoder and card.

    Attributes:
        shape: the decoder.
        tile: samples of a block.
        warp_columns: columns of a layer's output that one warp computes.
        blocks: blocks that share a multiprocessor; bounds the registers.
        groups: groups of threads in a block that keeps all weights in shared memory, each with a
            tile of its own at a time; 0 for blocks of one tile, which copy weights layer by layer.
        scatter: neighbouring channels of the planes' gradients that a lane adds, 4 or 1.
        chunk: samples whose layer inputs and gradients are kept at a time on the way back.
    """

    shape: DecoderShape
    tile: int
    warp_columns: int
    blocks: int
    groups: int = 0
    scatter: int = 4
    chunk: int = 65536

    @property
    def threads(self) -> int:
        """Threads of a block."""
        tile = self.tile // 32 * (self.shape.hidden // self.warp_columns) * 32
        return tile * max(1, self.groups)

    def grid(self, tiles: int, multiprocessors: int) -> list[int]:
        """Blocks for so many tiles; those that keep weights take tile after tile."""
        if not self.groups:
            return [tiles]
        return [min(-(-tiles // self.groups), multiprocessors * self.blocks)]

    @property
    def forward_bytes(self) -> int:
        """Dynamic shared memory of the forward kernels."""
        return self._weight_bytes + max(1, self.groups) * self._forward_tile

    @property
    def backward_bytes(self) -> int:
        """Dynamic shared memory of the backward kernel."""
        tile = self._forward_tile + 2 * self.tile * (HEAD + _SKEW)
        if self.groups:
            tile += 4 * self.tile * (self.shape.channels + 4)
        return self._weight_bytes + max(1, self.groups) * tile

    @property
    def gradient_bytes(self) -> int:
        """Dynamic shared memory of the decoder's gradients."""
        return 2 * _STEP * (_STRIP + _SKEW + self.shape.hidden + HEAD + _SKEW)

    @property
    def strips(self) -> int:
        """Blocks across the weights in the decoder's gradients."""
        shape = self.shape
        rows = (shape.density_in, shape.color_in, *[shape.hidden] * 3)
        return sum((count + _STRIP - 1) // _STRIP for count in rows)

    @property
    def macros(self) -> dict[str, int]:
        """Return what the sources are specialised by."""
        return {
            "CHANNELS": self.shape.channels,
            "COLOR_CHANNELS": self.shape.color_channels,
            "HIDDEN": self.shape.hidden,
            "FREQUENCIES": self.shape.frequencies,
            "TILE": self.tile,
            "WARP_COLUMNS": self.warp_columns,
            "BLOCKS_PER_SM": self.blocks,
            "RESIDENT": int(self.groups > 0),
            "GROUPS": max(1, self.groups),
            "SCATTER_WIDTH": self.scatter,
            "EXPECTED_FORWARD_BYTES": self.forward_bytes,
            "EXPECTED_BACKWARD_BYTES": self.backward_bytes,
            "EXPECTED_WEIGHTS": self.shape.weights,
            "EXPECTED_INPUTS": self.shape.inputs,
            "EXPECTED_GRADIENTS": self.shape.gradients,
            "EXPECTED_GRADIENT_BYTES": self.gradient_bytes,
            "EXPECTED_STRIPS": self.strips,
        }

    @property
    def _weight_bytes(self) -> int:
        shape = self.shape
        row, wide = shape.hidden + _SKEW, shape.hidden + HEAD + _SKEW
        if self.groups:
            rows = shape.density_in + shape.color_in + shape.hidden
            size = 2 * (rows * row + shape.hidden * (wide + HEAD + _SKEW))
        else:
            size = max(
                2 * max(shape.density_in, shape.color_in, shape.hidden) * row,
                2 * shape.hidden * wide,
                2 * shape.density_in * row + 4 * self.tile * (shape.channels + 4),
            )
        return (size + 127) // 128 * 128

    @property
    def _forward_tile(self) -> int:
        shape = self.shape
        act = max(shape.density_in, shape.color_in, shape.hidden) + _SKEW
        return 2 * self.tile * (act + shape.channels + _SKEW) + 16 * self.tile


def candidate_layouts(shape: DecoderShape, capability: int, *, backward: bool) -> list[FieldLayout]:
    """Return the cuts that fit a card, the likely best first.

    Large multiprocessors (A100, H100 and after) take two blocks, so that one computes while the
    other gathers or waits for weights; smaller ones take one block of as many samples as fit, as
    every tile reads all weights. Where all weights fit beside two tiles, they may stay. The way
    back takes more registers: cuts that would spill them are left out.
    """
    limit = shared_limit(capability)
    columns = min(32, shape.hidden)
    # Four floats are added at once from sm_90 on.
    scatter = 4 if capability >= 90 else 1
    # Tile, columns, blocks, groups. Two blocks a multiprocessor where there is room for two.
    wanted = [(64, columns, 2, 0), (128, columns, 1, 0), (64, columns, 1, 0), (32, columns, 1, 0)]
    if backward and capability < 75:
        wanted.remove((128, columns, 1, 0))
    if limit >= _LARGE:
        wanted += [(64, columns, 1, 1)]
        if not backward:
            wanted += [(64, columns, 1, 2), (128, columns, 1, 1)]
        if shape.hidden >= 64:
            # Wider warps read an activation less often, and take twice the registers.
            wanted += [(128, 64, 1, 0), (64, 64, 2, 0), (128, 64, 1, 1)]
            if not backward:
                wanted += [(128, 64, 2, 0), (64, 64, 1, 2), (64, 64, 1, 3)]
    found = []
    for tile, across, blocks, groups in wanted:
        layout = FieldLayout(shape, tile, across, blocks, groups, scatter)
        size = layout.backward_bytes if backward else layout.forward_bytes
        if blocks * size <= limit and (blocks == 1 or limit >= _LARGE):
            found.append(layout)
    return found


def variations(layout: FieldLayout) -> list[FieldLayout]:
    """Return what else may be faster on the way back, of the same cut.

    The other way to add to the planes' gradients, and a workspace that stays in the L2 cache.
    """
    return [replace(layout, scatter=5 - layout.scatter), replace(layout, chunk=16384)]


def choose_layout(shape: DecoderShape, capability: int, *, backward: bool) -> FieldLayout:
    """Return the cut that is likely best for a card.

    Raises:
        UserError: if none fits.
    """
    layouts = candidate_layouts(shape, capability, backward=backward)
    if not layouts:
        raise UserError(
            f"a decoder of this shape does not fit a GPU with {shared_limit(capability)} bytes of "
            "shared memory per block; use impl='torch' or 'auto'"
        )
    return layouts[0]
