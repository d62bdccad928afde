"""The doctor survives what it is there to judge, and is not alarmed by sets that are just small."""

import itertools
import json
import shutil

import pytest

from tests.captures.doctor import heads
from triavatar import cli

FRAMES = (0, 3, 8, 14, 20, 27)


def test_few_views_are_no_fault(project, tmp_path, capsys):
    """Six views of four people, seen from far apart: every one carves what no other does."""
    example, root = project / "data" / "example", tmp_path / "set"
    names = [f"subject_{index:06d}" for index in range(4)]
    for name in names:
        (root / name).mkdir(parents=True)
        for frame in FRAMES:
            for file in (f"img_proc_fg_{frame:06d}.png", f"metadata_{frame:06d}.json"):
                shutil.copyfile(example / name / file, root / name / file)
    description = json.loads((example / "dataset.json").read_text())
    views = {"train": list(FRAMES[:-1]), "validation": [], "test": list(FRAMES[-1:])}
    identities = {"train": names, "validation": [], "test": []}
    description |= {"splits": {"identities": identities, "views": views}, "objects": {}}
    (root / "dataset.json").write_text(json.dumps(description))
    assert cli.main(["doctor", str(root)]) == 0, capsys.readouterr().out
    # One picture of the six in another's place is a fault still.
    pictures = [root / names[0] / f"img_proc_fg_{frame:06d}.png" for frame in (8, 27)]
    pictures[0].write_bytes(pictures[1].read_bytes())
    assert cli.main(["doctor", str(root)]) == 1


NO_DESCRIPTIONS = [
    "", "null", "3", "[]", '"x"', "{", "[" * 100000, '{"format": "triavatar-multiview"}', "\0",
]  # fmt: skip
WRONG = [None, 3, -1, 1e308, "x", [], {}, [[]], [None], {"x": 3}, [{"x": [1]}], "all", True]
PLACES = [
    ("world",), ("world", "camera_axes"), ("world", "world_from_file"), ("splits",),
    ("splits", "identities"), ("splits", "views"), ("splits", "identities", "train"),
    ("splits", "views", "train"), ("objects",), ("objects", "ada"), ("objects", "ada", "exclude"),
    ("cameras",), ("cameras", "matrix"), ("cameras", "focal_factor"), ("pictures",),
    ("pictures", "portrait_frame"), ("version",),
]  # fmt: skip


@pytest.fixture(scope="module")
def set_of_heads(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads") / "set"
    heads.write_heads(root)
    return root


def judge(root, capsys) -> None:
    status = cli.main(["doctor", str(root), "--no_geometry", "--n_decoded", "2"])
    printed = capsys.readouterr()
    assert status in (0, 1, 2)
    assert "Error" not in printed.out + printed.err
    assert (status == 2) == printed.err.startswith("error: ")


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_descriptions_that_say_anything(step, set_of_heads, capsys):
    """Every kind of value in every place of dataset.json: 230 of them."""
    file = set_of_heads / "dataset.json"
    whole = file.read_text()
    try:
        for text in NO_DESCRIPTIONS:
            file.write_text(text)
            judge(set_of_heads, capsys)
        for place, value in list(itertools.product(PLACES, WRONG))[::step]:
            content = json.loads(whole)
            holder = content
            for key in place[:-1]:
                holder = holder.setdefault(key, {})
            holder[place[-1]] = value
            file.write_text(json.dumps(content))
            judge(set_of_heads, capsys)
    finally:
        file.write_text(whole)
