"""The outcome of a look at a set, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from captures.doctor.findings import Finding


@dataclass
class Diagnosis:
    """The findings of one look at a set.

    Attributes:
        agreement: mean share of the silhouettes that the carved hulls fill; None if not judged.
        notes: what was not looked at, and why.
    """

    findings: list[Finding] = field(default_factory=list)
    n_names: int = 0
    n_subjects: int = 0
    n_views: int = 0
    n_decoded: int = 0
    agreement: float | None = None
    colour_spread: float | None = None
    notes: list[str] = field(default_factory=list)


def print_report(root: Path, diagnosis: Diagnosis, cured: list[Finding], seconds: float) -> None:
    """Write the report to the standard output.

    Args:
        cured: findings whose cure was written into ``dataset.json``.
        seconds: how long the look took.
    """
    looked = (
        f"{diagnosis.n_subjects} of {diagnosis.n_names} subjects, {diagnosis.n_views} views, "
        f"{diagnosis.n_decoded} pictures decoded, {seconds:.1f} s"
    )
    print(f"{root}: {looked}")
    if diagnosis.agreement is not None:
        print(
            f"cameras and silhouettes agree to {100 * diagnosis.agreement:.1f} %; colours at one "
            f"point differ by {100 * (diagnosis.colour_spread or 0):.0f} % of all their variance"
        )
    for note in diagnosis.notes:
        print(f"note: {note}")
    for finding in cured:
        done = "left out" if "leaves" in finding.effect else finding.cure
        print(f"cured: {finding.check}: {finding.message}\n       done: {done}")
    for finding in diagnosis.findings:
        print(f"found: {finding.check}: {finding.message}")
        print(f"       cure: {finding.cure} ({finding.effect})")
    if not diagnosis.findings:
        print("nothing is wrong" + (" any more" if cured else ""))


def as_json(root: Path, diagnosis: Diagnosis, cured: list[Finding]) -> dict[str, Any]:
    """The same as a table for :func:`runtime.files.write_json`."""
    return {
        "set": str(root),
        "clean": not diagnosis.findings,
        **asdict(diagnosis),
        "cured": [asdict(finding) for finding in cured],
    }
