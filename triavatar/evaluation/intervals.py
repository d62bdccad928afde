"""Means over people, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
FEWEST = 3
"""People below which an interval would say nothing."""

Scores = Mapping[str, Mapping[str, float]]
"""Subject → metric → value."""


def mean_scores(scores: Scores, names: Sequence[str]) -> dict[str, float]:
    """Return the mean of every metric over those subjects that have it."""
    keys = dict.fromkeys(key for name in names for key in scores[name])
    return {
        key: float(np.mean([scores[n][key] for n in names if key in scores[n]])) for key in keys
    }


def confidence_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean over people, by the percentile bootstrap.

    People are what is drawn again: views of one person are no independent measurements.

    Args:
        values: one for each person.
        seed: of the draws; the same values give the same interval.

    Returns:
        Lower and upper end; None of fewer than three people.
    """
    if len(values) < FEWEST:
        return None
    random = np.random.default_rng(seed)
    people = np.asarray(values, dtype=np.float64)
    drawn = people[random.integers(len(people), size=(RESAMPLES, len(people)))].mean(axis=1)
    outside = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [outside, 100 - outside])
    return float(low), float(high)


def interval_scores(scores: Scores, names: Sequence[str]) -> dict[str, list[float]]:
    """Return the intervals of all metrics that enough people have."""
    intervals = {}
    for key in mean_scores(scores, names):
        found = confidence_interval([scores[n][key] for n in names if key in scores[n]])
        if found is not None:
            intervals[key] = list(found)
    return intervals
