"""``triavatar train-likeness``: what likeness learns from people, in one folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from captures.multiview import MultiViewSet
from captures.selection import SetConvention
from likeness.learned.encoder import EncoderSettings
from likeness.learned.likeness_model import learn_likeness
from renderer.fitted_set import FittedSet
from runtime.config import own_first
from runtime.errors import UserError


@own_first
@dataclass
class TrainLikenessConfig(SetConvention):
    """Settings of ``triavatar train-likeness``."""

    root: Path
    """Multi-view set of the people; frame 0 of each is the portrait."""
    triplanes: Path
    """Their triplanes: output folder of fit-triplanes."""
    output_dir: Path
    """Folder to write: config.json, prior/, regression.safetensors, encoders.safetensors; networks
    that are trained already wait in networks/ should the training be stopped."""
    identities: Literal["train", "all"] = "train"
    """Who is learnt from; held-out people of the set are kept for measuring."""
    n_people: int | None = None
    """Only the first so many of them."""
    components: int = 256
    """Components of the linear model at most; up to 0.13 MB each for planes of 64² and 16
    channels, so that a model of 1,000 people stays under 48 MB."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """The networks that guess coefficients beside regression; most of the time."""


def fitted_people(
    views: MultiViewSet, fitted: FittedSet, identities: str, count: int | None = None
) -> list[str]:
    """Names of the people of a split whose triplanes are there, the first ``count``.

    Raises:
        UserError: there are none.
    """
    there = set(fitted.names)
    names = [name for name in views.split(identities) if name in there][:count]
    if not names:
        raise UserError(
            f"{fitted.folder} holds no triplanes of {identities} people of {views.root}; fit them "
            "with fit-triplanes"
        )
    return names


def train_likeness(config: TrainLikenessConfig) -> None:
    """Learn prior and regression and write them.

    Raises:
        UserError: there are too few people, or files are missing or damaged.
    """
    views = MultiViewSet(config.root, config.convention)
    fitted = FittedSet.open(config.triplanes)
    names = fitted_people(views, fitted, config.identities, config.n_people)
    model = learn_likeness(
        views,
        fitted,
        names,
        config.components,
        config.encoder,
        Path(config.output_dir) / "networks",
    )
    model.save(config.output_dir)
    variances = model.prior.variances()
    alone, together = (
        100 * (1 - float((variances * spread.square()).sum()))
        for spread in (model.regression.spread, model.guess.spread)
    )
    share = 100 * model.guess.share
    print(
        f"{len(names)} people, {model.prior.components} components; of how people left out differ, "
        f"regression explains {alone:.0f} %, with {share:.0f} % of the networks' guess "
        f"{together:.0f} %; in {config.output_dir}"
    )
