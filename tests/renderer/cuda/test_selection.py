"""The fastest cut of the kernels: measured, compared, kept."""

import json

import pytest
import torch

from renderer.cuda.field import selection
from renderer.cuda.field.layout import DecoderShape, FieldLayout, candidate_layouts
from renderer.cuda.field.trial import Trial

SHAPE = DecoderShape(16, 12, 32, 1)
CPU = torch.device("cpu")


class Clocked:
    """A trial whose cuts take stated times and give stated results."""

    def __init__(self, times, wrong=(), broken=()):
        self.times, self.wrong, self.broken, self.tried = times, wrong, broken, []

    def run(self, layout):
        self.tried.append(layout)
        if layout in self.broken:
            raise RuntimeError("too many resources requested")
        return [torch.ones(4) * (1.1 if layout in self.wrong else 1.0)]

    def milliseconds(self, layout):
        return self.times(layout)


def cuts() -> list[FieldLayout]:
    return candidate_layouts(DecoderShape(32, 24, 128, 2), 90, backward=True)


def test_the_fastest_is_taken_with_its_best_variation():
    target = cuts()[3]

    def times(layout):
        same = (layout.tile, layout.warp_columns, layout.blocks, layout.groups)
        slow = same != (target.tile, target.warp_columns, target.blocks, target.groups)
        return 5.0 * slow + (1.0 if layout.chunk == 16384 else 2.0)

    chosen, rows = selection.fastest(cuts(), Clocked(times), True)
    assert chosen.chunk == 16384 and chosen.scatter == target.scatter
    assert (chosen.tile, chosen.groups) == (target.tile, target.groups)
    assert len(rows) == len(cuts()) + 2


def test_cuts_that_are_wrong_or_do_not_run_are_left_out():
    first, second, third = cuts()[:3]
    trial = Clocked(
        {first: 3.0, second: 1.0, third: 2.0}.__getitem__, wrong=[second], broken=[third]
    )
    chosen, rows = selection.fastest([first, second, third], trial, False)
    assert chosen == first
    assert "differ by 10.0%" in rows[1]["left_out"] and "resources" in rows[2]["left_out"]


def test_nan_is_a_difference():
    broken = [torch.tensor([1.0, float("nan")])]
    assert selection.difference(broken, [torch.ones(2)]) == float("inf")


def test_a_choice_is_kept_and_damage_measured_anew(host, tmp_path, monkeypatch):
    few = candidate_layouts(SHAPE, 90, backward=True)[-2:]
    monkeypatch.setattr(selection, "candidate_layouts", lambda *_, **__: few)
    made = []
    monkeypatch.setattr(selection, "Trial", lambda *a, **k: made.append(1) or Trial(*a, **k))
    chosen = selection.kept_choice(SHAPE, CPU, True, tmp_path)
    (file,) = tmp_path.glob("cut-*.json")
    rows = json.loads(file.read_text())["cuts"]
    # Every one of them ran on the host, agreed with the first and was timed.
    assert all(row["milliseconds"] > 0 for row in rows) and len(rows) == 4
    assert selection.kept_choice(SHAPE, CPU, True, tmp_path) == chosen and len(made) == 1
    for damage in ("{}", "[]", "no json", json.dumps({"chosen": {"tile": 7}})):
        file.write_text(damage)
        selection.kept_choice(SHAPE, CPU, True, tmp_path)
    assert len(made) == 5


@pytest.mark.parametrize("backward", [False, True])
def test_every_shape_has_cuts_that_fit(backward):
    for capability in (70, 75, 80, 90, 120):
        for layout in candidate_layouts(SHAPE, capability, backward=backward):
            assert layout.threads <= 1024 and layout.threads % 32 == 0
