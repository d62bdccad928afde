"""Training and held-out subjects: the split of identities, wherever it is stated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from captures.multiview import MultiViewSet
from captures.selection import SubjectSelection
from diffusion.conditioning.feature_set import FeatureSet
from renderer.fitted_set import FittedSet
from runtime.errors import UserError

Splits = dict[str, list[str]]


@dataclass(kw_only=True)
class SubjectsConfig(SubjectSelection):
    """Selects the subjects that a stage trains on."""

    root: Path | None = None
    """Multi-view set: its split of identities, and views of held-out subjects for validation."""
    identities: Literal["train", "all"] = "train"
    """Train on the training identities, or on all there are (nothing is left to validate on)."""

    def open_views(self) -> MultiViewSet | None:
        """The multi-view set, where one was given."""
        return None if self.root is None else MultiViewSet(self.root, self.convention)


@dataclass(frozen=True)
class Subjects:
    """Names of the subjects to train on, and of those to validate on (never both)."""

    train: list[str]
    validation: list[str]


def stated_splits(
    views: MultiViewSet | None, fitted: FittedSet | None, features: FeatureSet | None
) -> Splits | None:
    """The split of identities, as the first of these that states one has it."""
    if views is not None and views.identity_splits is not None:
        return views.identity_splits
    for folder in (fitted, features):
        if folder is not None and folder.identities is not None:
            return folder.identities
    return None


def chosen_subjects(
    config: SubjectsConfig,
    available: Sequence[str],
    where: Path,
    splits: Splits | None,
) -> Subjects:
    """Split subjects into those to train on and those to validate on.

    Args:
        config: identities, list and slice.
        available: subjects of the multi-view set, or of the fitted set without one.
        where: the folder they are of, for messages.
        splits: as stated; see `stated_splits`.

    Raises:
        UserError: nothing states who is held out, a held-out identity is asked for, or nothing is
            left.
    """
    if config.identities == "all":
        return Subjects(config.chosen(list(available)), [])
    if splits is None:
        raise UserError(
            f"{where} does not say which identities are held out: give --root with a set whose "
            f"dataset.json does, or --identities all to train on everybody"
        )
    training = set(splits.get("train", []))
    allowed = [name for name in available if name in training]
    if not allowed:
        raise UserError(f"{where} has no training identities")
    names = config.chosen(allowed, list(available))
    held_out = [name for name in names if name not in training]
    if held_out:
        raise UserError(f"{config.txt_file} names held-out identities: {', '.join(held_out[:5])}")
    validation = set(splits.get("validation", [])) - training
    return Subjects(names, [name for name in available if name in validation])


def paired_subjects(
    config: SubjectsConfig,
    views: MultiViewSet | None,
    fitted: FittedSet,
    features: FeatureSet | None,
) -> Subjects:
    """The subjects of a diffusion training; those to validate on have triplane and features.

    Without features the portraits are pictures of the multi-view set.

    Raises:
        UserError: as `chosen_subjects`.
    """
    available = views.names if views is not None else fitted.names
    where = views.root if views is not None else fitted.folder
    chosen = chosen_subjects(config, available, where, stated_splits(views, fitted, features))
    ready = set(fitted.names)
    if features is not None:
        ready &= set(features.names)
    return Subjects(chosen.train, [name for name in chosen.validation if name in ready])
