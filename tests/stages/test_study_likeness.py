"""``triavatar study likeness`` from end to end, on the painted balls."""

import json
import shutil

import pytest

from captures.multiview import MultiViewSet
from captures.photographs import write_portrait
from triavatar import cli

QUICK = ["--encoder.folds", "0", "--likeness.size", "32", "--likeness.planes.size", "16"]
QUICK += ["--likeness.planes.steps", "2", "--likeness.coefficients.steps", "2"]
QUICK += ["--likeness.coefficients.newton_steps", "1", "--likeness.sides.size", "16"]
QUICK += ["--likeness.march.steps", "32", "--likeness.march.grid", "16"]


@pytest.fixture(scope="module")
def people(chain, tmp_path_factory):
    """The balls, of which the held-out one was also drawn as a photograph would be."""
    root = tmp_path_factory.mktemp("study") / "people"
    shutil.copytree(chain.root, root)
    views = MultiViewSet(root)
    record = {"seed": 0, "light": {}}
    camera = views.portrait_camera("held")
    write_portrait(root / "held", 0, views.portrait("amber"), camera, record)
    return root


def study(people, chain, folder, *more: str) -> int:
    sets = ["--root", str(people), "--triplanes", str(chain.out / "fit-triplanes")]
    flags = ["--identities", "test", "--output_dir", str(folder), *QUICK]
    return cli.main(["study", "likeness", *sets, *flags, *more])


def test_portraits_drawn_as_photographs_are_told_apart(people, chain, tmp_path):
    methods = ["--methods", "mean", "nearest", "full"]
    portraits = ["--portraits", "frame", "photograph"]
    assert study(people, chain, tmp_path, *methods, *portraits) == 0
    tables = json.loads((tmp_path / "likeness.json").read_text())["tables"]
    assert set(tables) == {"frame/3", "photograph/3"}
    for table in tables.values():
        assert set(table) == {"mean", "nearest", "full"}
    # The photograph shows another ball: what was made of it differs.
    of_frame, of_photograph = (
        json.loads((tmp_path / "avatars" / kind / "3" / "full" / "held.json").read_text())
        for kind in ("frame", "photograph")
    )
    assert of_frame["surprise"] != of_photograph["surprise"]
    assert len(of_frame["psnr"]) == len(of_photograph["psnr"]) == 8
    assert "drawn as photographs" in (tmp_path / "likeness.md").read_text()


def test_a_set_without_such_portraits_says_how_to_draw_them(chain, tmp_path, capsys):
    flags = ["--methods", "regression", "--portraits", "photograph"]
    assert study(chain.root, chain, tmp_path, *flags) != 0
    assert "studio render --portraits" in capsys.readouterr().err
