"""The one way to spread work over subjects: on this machine's processes or on a Ray cluster.

A stage states its work once (:class:`Job`) and calls :func:`spread`. Finished subjects are
skipped, damaged ones listed at the end, those of killed processes tried again, and no two
processes work on one subject at a time (:mod:`runtime.spread.turns`).
"""

from runtime.spread.job import Job, Turns
from runtime.spread.settings import SpreadSettings
from runtime.spread.spread import Report, spread

__all__ = ["Job", "Report", "SpreadSettings", "Turns", "spread"]
