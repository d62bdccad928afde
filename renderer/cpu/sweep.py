"""Rays to pixels: marching, density, early stop and colour in one sweep over the samples.

Legend: B triplanes, R rays in all, C channels, H W plane size, G cells along one side of the box.

Each worker follows many rays at once, a few samples ahead on each
(:mod:`renderer.cpu.kernels.lookahead`).
Density decides which samples show; they wait, with the hidden units their density came from,
until they fill a chunk, and only then get their colour. Nothing is computed twice, nothing behind
a surface is marched, and no list of all samples is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderer.cpu.buffers import (
    CHUNK,
    Activations,
    Parameters,
    Shown,
    chunks_to_keep,
    give_back_activations,
    take_activations,
)
from renderer.cpu.chunk import ChunkRunner
from renderer.cpu.kernels import lookahead
from renderer.cpu.kernels.lookahead import Batch, Chosen, Slots
from renderer.cpu.kernels.lookup import Places
from renderer.cpu.kernels.marching import March
from renderer.cpu.threads import interleaved_rays, run_workers, worker_count


@dataclass(frozen=True)
class Sweep:
    """Settings of a sweep.

    Attributes:
        march: rays, cells and the lattice of samples.
        layout: colour channels and frequencies of the decoder.
        stop: samples behind a transmittance below this are ignored.
        least: a sample that weighs no more gets no colour; below 0 every sample in sight does.
        recorded: whether to return the samples in sight, for a backward pass.
    """

    march: March
    layout: tuple[int, int]
    stop: float
    least: float
    recorded: bool

    def places(self, ray: np.ndarray, t: np.ndarray) -> Places:
        """Samples [S] of the swept rays."""
        march = self.march
        return Places(march.origins, march.directions, march.rays_each, ray, t, ray)


@dataclass(frozen=True)
class Swept:
    """Sums over the samples of each ray.

    Attributes:
        total: Σ w·colour of the samples with a colour, [R, 3]. mass: their Σ w, [R].
        opacity, distance: Σ w and Σ w·t of all samples, [R].
        shown: each worker's chunks, in order; empty unless they were recorded.
    """

    total: np.ndarray
    mass: np.ndarray
    opacity: np.ndarray
    distance: np.ndarray
    shown: list[list[Shown]]


def sweep(setting: Sweep, parameters: Parameters) -> Swept:
    """Composite rays; see :class:`Sweep` and :class:`Swept`."""
    rays = len(setting.march.origins)
    workers = worker_count()
    mine = interleaved_rays(rays, workers)
    swept = Swept(
        np.zeros((rays, 3), np.float32),
        *np.zeros((3, rays), np.float32),
        [[] for _ in range(workers)],
    )

    def work(index: int) -> None:
        _Worker(setting, parameters, swept, swept.shown[index], workers).follow(mine[index])

    run_workers(work, workers)
    return swept


class _Worker:
    """One worker's share of a sweep; it adds to rays that no other worker touches."""

    def __init__(
        self,
        setting: Sweep,
        parameters: Parameters,
        swept: Swept,
        recorded: list[Shown],
        workers: int,
    ):
        self.setting, self.parameters = setting, parameters
        self.swept, self.recorded = swept, recorded
        ray, t = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.float32)
        self.runner = ChunkRunner(parameters, setting.places(ray, t), *setting.layout)
        self.batch = Batch(ray, t, np.empty(CHUNK, np.float32), self.runner.exponent)
        self.keeps = chunks_to_keep(self.runner.widths, workers) if setting.recorded else 0
        self.shader = ChunkRunner(parameters, self.runner.places, *setting.layout)
        self._make_room(take_activations(self.runner.widths))

    def follow(self, order: np.ndarray) -> None:
        """Composite the rays ``order``."""
        setting, march, batch, swept = self.setting, self.setting.march, self.batch, self.swept
        chosen = Chosen(np.empty(CHUNK, np.int64), *np.empty((2, CHUNK), np.float32))
        stop, least = np.float32(setting.stop), np.float32(setting.least)
        slots = Slots.free()
        following = 0
        while True:
            count, following = lookahead.fill_batch(march, order, following, slots, batch)
            if count == 0:
                break
            features = self.runner.gather(0, count)
            self.runner.density_of_features(features, setting.layout[0], batch.density[:count])
            found = lookahead.show_batch(
                march, batch, slots, stop, least, swept.opacity, swept.distance, chosen
            )
            done = 0
            while done < found:
                room = min(found, done + CHUNK - self.waiting.count)
                self._wait(chosen.part(done, room))
                done = room
        if self.waiting.count:
            self._shade()
        if self.waiting.activations is not None:
            give_back_activations([self.waiting.activations])

    def _wait(self, chosen: Chosen) -> None:
        """Let samples of the batch wait for their colour; a full chunk gets it at once."""
        waiting, runner, shader = self.waiting, self.runner, self.shader
        start, end = waiting.count, waiting.count + len(chosen.row)
        lookahead.take_numbers(self.batch, chosen, start, waiting.waiting())
        for source, target, column in (
            (runner.features, shader.features, 0),
            (runner.wide.array, shader.wide.array, runner.column),
            (runner.density_encoded.array, shader.density_encoded.array, 0),
        ):
            lookahead.take_rows(source, chosen.row, column, start, target)
        waiting.count = end
        if end == CHUNK:
            self._shade()

    def _shade(self) -> None:
        """Colour the waiting samples and make room for others."""
        waiting, count = self.waiting, self.waiting.count
        color = waiting.color[:count]
        self.shader.color_of_features(self.shader.features[:count], waiting.ray[:count], color)
        lookahead.add_colors(
            color, waiting.ray[:count], waiting.weight[:count], self.swept.total, self.swept.mass
        )
        if not self.setting.recorded:
            waiting.count = 0
            return
        self.recorded.append(waiting)
        if len(self.recorded) <= self.keeps:
            self._make_room(take_activations(self.shader.widths))
        else:  # computed again when they are needed
            activations, waiting.activations = waiting.activations, None
            self._make_room(activations)

    def _make_room(self, activations: Activations | None) -> None:
        assert activations is not None
        self.waiting = Shown(activations)
        self.shader.adopt(activations)
