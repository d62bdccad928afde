"""The number of batches that a stable Fisher estimate takes, and how one per identity compares.

Run from the source folder, on what ``triavatar fit-decoder`` or one run of the study left:
  PYTHONPATH=. python benchmarks/fisher_batches.py --run runs/stage1 --root data/example

For some subjects the importance is estimated from 1, 2, 4, … batches and compared with that from
many others. Errors are of the vector of importances: ‖Ω_k − Ω‖ / ‖Ω‖, and the same of √Ω, whose
largest entries dominate less. The last line says how alike the identities' importances are.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor

from captures.multiview import MultiViewSet
from fitting.consolidation import estimate_importance
from fitting.decoder_config import FitDecoderConfig
from fitting.ray_pool import RayPool
from fitting.subject_fit import SubjectFit
from renderer.fitted_set import FittedSet
from runtime.arguments import parse

COUNTS = (1, 2, 4, 8, 16, 32)


def relative_error(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a stage-1 run")
    parser.add_argument("--root", type=Path, required=True, help="its multi-view set")
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--many", type=int, default=256, help="batches of the reference")
    parser.add_argument("--repeats", type=int, default=4, help="estimates of each size")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    recorded = ["--config", str(given.run / "config.yaml")]
    config = parse(FitDecoderConfig, recorded, "fit-decoder", "")
    fitted = FittedSet.open(given.run)
    decoder = fitted.decoder().requires_grad_(True)
    data = MultiViewSet(given.root, config.convention)
    errors: dict[int, list[float]] = {count: [] for count in COUNTS}
    root_errors: dict[int, list[float]] = {count: [] for count in COUNTS}
    references = []
    for name in fitted.names[: given.subjects]:
        views = data.load(name, data.split_views("train", name), config.image_size)
        fit = SubjectFit(
            name, RayPool(views), fitted.load(name), decoder, config.fit, seed=1, total=1
        )

        def estimate(stream: str, count: int, fit: SubjectFit = fit) -> Tensor:
            losses = (fit.loss(k, stream) for k in range(count))
            return estimate_importance(decoder, losses)

        reference = estimate("many", given.many)
        references.append(reference)
        for count in COUNTS:
            for repeat in range(given.repeats):
                value = estimate(f"{count} batches {repeat}", count)
                errors[count].append(relative_error(value, reference))
                root_errors[count].append(relative_error(value.sqrt(), reference.sqrt()))
    unit = torch.nn.functional.normalize(torch.stack(references), dim=1)
    likeness = (unit @ unit.T)[~torch.eye(len(unit), dtype=torch.bool)]
    result = {
        "parameters": len(references[0]),
        "rays": config.fit.rays,
        "subjects": len(references),
        "reference_batches": given.many,
        "relative_error": {k: statistics.fmean(v) for k, v in errors.items()},
        "relative_error_of_root": {k: statistics.fmean(v) for k, v in root_errors.items()},
        "sum_of_importance": float(torch.stack(references).sum(1).mean()),
        "cosine_between_identities": float(likeness.mean()) if len(likeness) else None,
    }
    print("| batches | error of Ω | error of √Ω |\n|---|---|---|")
    for count in COUNTS:
        first, second = result["relative_error"][count], result["relative_error_of_root"][count]
        print(f"| {count} | {first:.3f} | {second:.3f} |")
    print(f"cosine between identities' importances: {result['cosine_between_identities']}")
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
