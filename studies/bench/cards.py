"""What the published trainings would take on known cards: modelled, not measured.

Memory is counted on tensors without content (`diffusion.training.memory`); time is the operations
of a step divided by a share of a card's peak rate.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusion.networks import TriplaneUNet, TriplaneUpsampler
from diffusion.training.memory import MemoryPlan, StepMemory, plan_memory, step_memory


@dataclass(frozen=True)
class Card:
    """A GPU: memory, and its makers' dense rate of half-precision products."""

    name: str
    gib: float
    tflops: float


V100 = Card("V100 32 GB", 31.7, 125)
A100 = Card("A100 80 GB", 79.2, 312)
H200 = Card("H200", 139.8, 989)
MACHINES = ((8, V100), (8, A100), (1, H200), (8, H200))


@dataclass(frozen=True)
class Run:
    """A published training."""

    name: str
    batch_size: int
    steps: int
    sample_mb: float
    """What a sample reads: fp16 planes and an 8-bit portrait of 256²."""

    @property
    def samples(self) -> int:
        return self.batch_size * self.steps


PLANE_MB = 3 * 32 * 2 / 1e6
PORTRAIT_MB = 3 * 256**2 / 1e6
BASE = Run("base", 96, 500_000, PLANE_MB * 128**2 + PORTRAIT_MB)
UPSAMPLER = Run("upsampler", 32, 300_000, PLANE_MB * (512**2 + 128**2) + PORTRAIT_MB)


def published_memory() -> dict[Run, StepMemory]:
    """Count both published models in mixed precision, for several cards."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        models = {
            BASE: (TriplaneUNet(plane_convs="released", dropout=0.1), 0.0),
            UPSAMPLER: (TriplaneUpsampler(), 2.0),
        }
    return {
        run: step_memory(model, half=True, average_on_card=True, cards=8, extra_gib=extra)
        for run, (model, extra) in models.items()
    }


def step_tflop(memory: StepMemory, plan: MemoryPlan) -> float:
    """Operations of a sample's training step: forward, twice that backward, once more redone."""
    return memory.tflop * (4 if plan.checkpointing else 3)


def modelled_table(memories: dict[Run, StepMemory], utilisation: float) -> str:
    """Markdown: a row for each training and machine.

    Args:
        memories: of the trainings' steps.
        utilisation: share of the cards' peak rate that training reaches.
    """
    lines = [
        f"Modelled, not measured: the published trainings at {100 * utilisation:.0f} % of a card's "
        "peak rate.",
        "",
        "| training | cards | micro-batch × accumulation | checkpointing | GB a card | samples/s "
        "| days | GB/s read |",
        "|---|---|---|---|---:|---:|---:|---:|",
    ]
    for run, memory in memories.items():
        for count, card in MACHINES:
            plan = plan_memory(memory, run.batch_size, count, card.gib)
            rate = count * card.tflops * utilisation / step_tflop(memory, plan)
            cells = [
                run.name,
                f"{count} × {card.name}",
                f"{plan.micro_batch} × {plan.accumulation}",
                "yes" if plan.checkpointing else "no",
                f"{plan.gib * 2**30 / 1e9:.0f}",
                f"{rate:.0f}",
                f"{run.samples / rate / 86400:.1f}",
                f"{rate * run.sample_mb / 1000:.2f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
