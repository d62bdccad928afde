"""A second guess of the coefficients: a small convolutional network on the portrait.

Legend: N people, M portraits, K coefficients, S side in pixels.

Regression compares whole portraits; a network learns which parts of them tell what. With a
thousand people neither wins alone: their average errs less than both.

As many networks are trained as there are folds, each without one fold of the people. Their
average guesses for strangers, and on the people it has not seen each says how far off it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from likeness.portrait.portrait import Portrait
from runtime.config import setting
from runtime.errors import UserError
from runtime.progress import progress
from runtime.seeds import generator, seed_of

SIDE = 64
"""Side in pixels of the portraits that the network sees."""
WIDTHS = (24, 48, 96, 128)
HIDDEN = 384
MOST_FOLDS = 16


@dataclass
class EncoderSettings:
    """Settings of training the networks that guess coefficients."""

    folds: int = setting(3, at_least=0, at_most=MOST_FOLDS)
    """How many are trained, each without as large a part of the people; 0 for none, else 2 or
    more."""
    epochs: int = setting(80, at_least=1, at_most=10000)
    """How often each sees every person, who is mirrored half the time."""
    batch: int = setting(32, at_least=1, at_most=4096)
    """Portraits a step."""
    learning_rate: float = setting(1.5e-3, above=0.0)
    """Of AdamW, reached after a third of the steps and left again."""
    weight_decay: float = setting(0.05, at_least=0.0)
    """Of AdamW."""
    dropout: float = setting(0.3, at_least=0.0, below=1.0)
    """Before both linear layers."""
    scale: float = setting(0.03, at_least=0.0, at_most=0.5)
    """Deviation of the portraits' size while training."""
    shift: float = setting(0.015, at_least=0.0, at_most=0.5)
    """Deviation of their place, in sides."""
    seed: int = 0
    """Names starts, order and changes of the portraits."""

    def check(self) -> None:
        """Refuse one fold, whose network would see nobody."""
        if self.folds == 1:
            raise UserError("folds of the encoder is 1; choose 0 for none, or 2 or more")


def encoder_pictures(portrait: Portrait) -> Tensor:
    """The portrait as a network sees it: colour on white, opacity; [4, SIDE, SIDE] in [-1, 1]."""
    small = portrait.resized(SIDE)
    stacked = torch.cat([small.color, small.alpha[..., None]], dim=-1)
    return stacked.permute(2, 0, 1) * 2 - 1


class PortraitEncoder(nn.Module):
    """A network from portraits to coefficients.

    Args:
        even, odd: numbers of coefficients that the mirror keeps and negates.
        dropout: while training.
    """

    def __init__(self, even: int, odd: int, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [(4, WIDTHS[0]), *zip(WIDTHS[:-1], WIDTHS[1:], strict=True)]
        self.blocks = nn.Sequential(*(_halving(a, b) for a, b in sizes))
        rest = WIDTHS[-1] * (SIDE // 2 ** len(WIDTHS)) ** 2
        self.hidden = nn.Linear(rest, HIDDEN)
        self.guess = nn.Linear(HIDDEN, even + odd)
        self.dropout = nn.Dropout(dropout)
        signs = torch.cat([torch.ones(even), -torch.ones(odd)])
        self.register_buffer("signs", signs, persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return coefficients [M, K] for :func:`encoder_pictures` [M, 4, SIDE, SIDE]."""
        seen = self.dropout(self.blocks(pictures).flatten(1))
        return self.guess(self.dropout(F.gelu(self.hidden(seen))))

    @torch.no_grad()
    def coefficients(self, pictures: Tensor) -> Tensor:
        """Return the mean [M, K] of what is guessed for pictures and for their mirror images."""
        return (self(pictures) + self.signs * self(pictures.flip(-1))) / 2


def _halving(entering: int, leaving: int) -> nn.Module:
    convolution = nn.Conv2d(entering, leaving, 3, stride=2, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(8, leaving), nn.GELU())


def encoders_state(encoders: Sequence[PortraitEncoder]) -> dict[str, Tensor]:
    """Return the parameters of networks, stacked by name, in 16 bits."""
    states = [encoder.state_dict() for encoder in encoders]
    return {name: torch.stack([s[name] for s in states]).half() for name in states[0]}


def encoders_of(state: Mapping[str, Tensor], even: int, odd: int) -> tuple[PortraitEncoder, ...]:
    """Return the networks of :func:`encoders_state`."""
    encoders = []
    for index in range(len(next(iter(state.values())))):
        encoder = PortraitEncoder(even, odd).eval()
        encoder.load_state_dict({name: state[name][index].float() for name in encoder.state_dict()})
        encoders.append(encoder)
    return tuple(encoders)


def state_shapes(count: int, even: int, odd: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of :func:`encoders_state` for ``count`` networks."""
    state = PortraitEncoder(even, odd).state_dict()
    return {name: (count, *tensor.shape) for name, tensor in state.items()}


def train_encoder(
    pictures: Tensor,
    even: Tensor,
    odd: Tensor,
    weights: Tensor,
    settings: EncoderSettings,
    fold: int = 0,
) -> PortraitEncoder:
    """Train one network.

    Args:
        pictures: [N, 4, SIDE, SIDE] of :func:`encoder_pictures`.
        even: [N, Ke] coefficients of the same people that the mirror keeps.
        odd: [N, Ko] coefficients that it negates.
        weights: [K], how much each coefficient's error counts.
        fold: names the start and the order.
    """
    targets, weights = torch.cat([even, odd], dim=1), weights / weights.sum()
    random = generator(settings.seed, "encoder", fold)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(settings.seed, "encoder start", fold))
        encoder = PortraitEncoder(even.shape[1], odd.shape[1], settings.dropout).train()
        rate, batch = settings.learning_rate, min(settings.batch, len(pictures))
        steps = max(settings.epochs * len(pictures) // batch, 2)
        optimizer = torch.optim.AdamW(
            encoder.parameters(), lr=rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
        for _ in progress(range(steps), desc=f"encoder {fold + 1}", unit="step"):
            chosen = torch.randint(len(pictures), (batch,), generator=random)
            mirrored = torch.rand(batch, generator=random) < 0.5
            seen = torch.where(
                mirrored[:, None, None, None], pictures[chosen].flip(-1), pictures[chosen]
            )
            wanted = torch.where(
                mirrored[:, None], targets[chosen] * encoder.signs, targets[chosen]
            )
            missed = encoder(_changed(seen, settings, random)) - wanted
            loss = (missed.square() * weights).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return encoder.eval()


def _changed(pictures: Tensor, settings: EncoderSettings, random: torch.Generator) -> Tensor:
    """Pictures of slightly other size and place, with a little noise."""
    count = len(pictures)
    scale = 1 + settings.scale * torch.randn(count, generator=random)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale
    matrix[:, :, 2] = 2 * settings.shift * torch.randn(count, 2, generator=random)
    grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return moved + 0.02 * torch.randn(moved.shape, generator=random)
