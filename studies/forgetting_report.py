"""The report of ``triavatar study forgetting``: a table, the forgetting maps and curves.

Earlier identities are all but the last of the first round's order, the same ones for every method
of a seed. Spreads are standard deviations over seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fitting.decoder_fit import visiting_order
from runtime.described import Described, read_described
from runtime.files import write_json, write_text
from runtime.formats.settings_files import load_yaml
from runtime.runs import read_rows
from studies.bench.timing import machine
from studies.charts import Curve, draw_curves, draw_maps, pixels
from triavatar.sheets import save_picture

# Column of the table → what it says; full-size pictures first, then the pixels of every visit.
COLUMNS = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "earlier_psnr": "PSNR, earlier identities",
    "first_psnr": "PSNR, first identity",
    "worst_psnr": "PSNR, worst identity",
    "forgotten": "forgotten since own last visit, dB",
    "first_change": "first identity since its first visit, dB",
    "minutes": "minutes",
}


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        order: identities as the first round visited them.
        rows: measurements, oldest first: ``rays``, ``psnr/NAME``, …
        quality: identity → measure → final value on all held-out views at full size.
        settings: of the run, from its config.yaml.
    """

    order: list[str]
    rows: list[dict[str, float]]
    quality: dict[str, dict[str, float]]
    settings: dict[str, Any]

    @property
    def rays(self) -> list[float]:
        """Rays spent at each measurement."""
        return [row["rays"] for row in self.rows]

    def history(self, name: str, measure: str = "psnr") -> list[float]:
        """A measure of one identity at each measurement; nan before its first visit."""
        return [row.get(f"{measure}/{name}", float("nan")) for row in self.rows]

    def summary(self) -> dict[str, float]:
        """The values of :data:`COLUMNS`."""
        earlier, first = self.order[:-1], self.order[0]
        result = {
            measure: statistics.fmean(entry[measure] for entry in self.quality.values())
            for measure in self.quality[first]
        }
        for measure in ("psnr", "ssim"):
            values = [self.quality[name][measure] for name in earlier]
            result[f"earlier_{measure}"] = statistics.fmean(values)
        result["first_psnr"] = self.quality[first]["psnr"]
        result["worst_psnr"] = min(entry["psnr"] for entry in self.quality.values())
        result["forgotten"] = statistics.fmean(self._since_last_visit(name) for name in earlier)
        history = [value for value in self.history(first) if value == value]
        result["first_change"] = history[-1] - history[0]
        result["minutes"] = sum(row["seconds"] for row in self.rows) / 60
        return result

    def _since_last_visit(self, name: str) -> float:
        """dB lost between an identity's last visit and the end."""
        visits, history = self.history(name, "visits"), self.history(name)
        last = visits.index(visits[-1])
        return history[last] - history[-1]


class _Quality(Described):
    """``quality.json`` of a run: measures of every subject."""

    subjects: dict[str, dict[str, Any]]


def read_run(folder: Path) -> Run | None:
    """A finished run's results; None while it is not finished."""
    if not (folder / "quality.json").is_file():
        return None
    quality = read_described(_Quality, folder / "quality.json").subjects
    settings = load_yaml(folder / "config.yaml")
    rows = [row for row in read_rows(folder / "stats.jsonl") if "rays" in row]
    return Run(visiting_order(list(quality), settings["seed"], 0), rows, quality, settings)


def write_report(
    folder: Path, methods: Sequence[str], seeds: Sequence[int], device: torch.device
) -> None:
    """Write ``table.json``, ``table.md``, ``map_METHOD.png``, ``maps.png``, ``curves.png``.

    Of the runs finished so far; nothing while there is none. ``device`` is named in the table.
    """
    seeds = sorted(set(seeds))
    found: dict[str, dict[int, Run]] = {}
    for method in methods:
        runs = {seed: read_run(folder / method / f"seed_{seed}") for seed in seeds}
        finished = {seed: run for seed, run in runs.items() if run is not None}
        if finished:
            found[method] = finished
    if not found:
        return
    table = make_table(found) | {"machine": machine(device)}
    write_json(folder / "table.json", table)
    write_text(folder / "table.md", to_markdown(table))
    draw_report(folder, found)


def make_table(found: dict[str, dict[int, Run]]) -> dict[str, Any]:
    """The figures of every method: mean and spread over seeds, each run, and differences.

    Differences are between neighbouring methods, seed by seed, of the earlier identities' PSNR.
    """
    summaries = {
        method: {seed: run.summary() for seed, run in runs.items()}
        for method, runs in found.items()
    }
    one = next(iter(next(iter(found.values())).values()))
    setting = {key: one.settings[key] for key in ("plane_size", "channels", "hidden")}
    setting |= {"subjects": len(one.order), "rays": one.rays[-1]}
    differences = {}
    for before, after in pairwise(found):
        both = sorted(set(found[before]) & set(found[after]))
        values = [
            summaries[after][seed]["earlier_psnr"] - summaries[before][seed]["earlier_psnr"]
            for seed in both
        ]
        if values:
            differences[f"{after} - {before}"] = _spread(values)
    return {
        "setting": setting,
        "methods": {
            method: {
                key: _spread([summary[key] for summary in runs.values()])
                for key in next(iter(runs.values()))
            }
            for method, runs in summaries.items()
        },
        "differences_of_earlier_psnr": differences,
        "settings": {
            method: {
                key: value
                for key, value in next(iter(runs.values())).settings.items()
                if key not in ("root", "output_dir", "seed")
            }
            for method, runs in found.items()
        },
        "runs": {
            method: {
                str(seed): summaries[method][seed]
                | {"order": run.order, "quality": run.quality, "rays": run.rays[-1]}
                for seed, run in runs.items()
            }
            for method, runs in found.items()
        },
    }


def _spread(values: list[float]) -> dict[str, Any]:
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "n": len(values)}


def to_markdown(table: dict[str, Any]) -> str:
    """The table as Markdown, with a line on what was run."""
    setting, methods = table["setting"], table["methods"]
    columns = {
        key: title for key, title in COLUMNS.items() if all(key in m for m in methods.values())
    }
    lines = [
        f"| method | {' | '.join(columns.values())} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for method, values in methods.items():
        cells = (_cell(values[key], 3 if key in ("ssim", "lpips") else 2) for key in columns)
        lines.append(f"| {method} | {' | '.join(cells)} |")
    lines.append("")
    for pair, value in table["differences_of_earlier_psnr"].items():
        lines.append(f"- {pair}: {_cell(value, 2, sign='+')} dB, earlier identities, seed by seed")
    lines.append(
        f"\n{setting['subjects']} subjects, {setting['rays'] / 1e6:.2f} M rays with gradients in "
        f"each run, planes {setting['channels']}×{setting['plane_size']}², decoder width "
        f"{setting['hidden']}; mean ± standard deviation over seeds "
        f"({', '.join(str(v['psnr']['n']) for v in methods.values())} runs of the methods)."
    )
    return "\n".join(lines) + "\n"


def _cell(value: dict[str, Any], digits: int, sign: str = "") -> str:
    mean = f"{value['mean']:{sign}.{digits}f}"
    return mean if value["std"] is None else f"{mean} ± {value['std']:.{digits}f}"


def draw_report(folder: Path, found: dict[str, dict[int, Run]]) -> None:
    """The pictures: maps of the first seed's runs, curves over all seeds."""
    shown = {method: runs[min(runs)] for method, runs in found.items()}
    maps = {method: np.array([run.history(n) for n in run.order]) for method, run in shown.items()}
    known = np.concatenate([values[np.isfinite(values)] for values in maps.values()])
    # The few worst moments would take most of the colours.
    scale = (float(np.percentile(known, 2)), float(known.max()))
    rays = {method: np.array(run.rays) for method, run in shown.items()}
    save_picture(folder / "maps.png", pixels(draw_maps(maps, rays, scale)))
    for method in maps:
        one = draw_maps({method: maps[method]}, rays, scale)
        save_picture(folder / f"map_{method}.png", pixels(one))
    panels = {
        "mean of the identities visited so far": lambda run: run.order,
        "the first identity": lambda run: run.order[:1],
    }
    curves = {
        title: [Curve(method, *_over_seeds(runs, chosen)) for method, runs in found.items()]
        for title, chosen in panels.items()
    }
    save_picture(folder / "curves.png", pixels(draw_curves(curves)))


def _over_seeds(runs: dict[int, Run], chosen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays, and over seeds mean and standard deviation of the mean PSNR of chosen identities."""
    values = np.array(
        [np.nanmean([run.history(name) for name in chosen(run)], axis=0) for run in runs.values()]
    )
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return np.array(next(iter(runs.values())).rays), values.mean(axis=0), spread
