"""What dataset.json says of its pictures counts wherever portraits are read."""

import json
import shutil

import numpy as np
import torch
from PIL import Image

from renderer.fitted_set import FittedSet
from triavatar import cli

MATTE, FRONT = (10, 20, 30), 5


def picture(root, frame):
    return root / "blue" / f"img_proc_fg_{frame:06d}.png"


def generated(chain, root, output):
    arguments = chain.arguments("generate", output)
    arguments[arguments.index("--root") + 1] = str(root)
    assert cli.main([*arguments, "--start_idx", "1", "--end_idx", "2", "--views.frames", "0"]) == 0
    return FittedSet.open(output).load("blue")


def test_generate_reads_portraits_as_the_set_says(chain, tmp_path):
    """Another frame in front, alpha the other way round, a matte: the same avatar to the bit."""
    plain, other = tmp_path / "plain", tmp_path / "other"
    for root in (plain, other):
        shutil.copytree(chain.root, root)
    # Without half-transparent pixels a matte can be taken out of 8 bits without a loss.
    rgba = np.asarray(Image.open(picture(plain, 0)))
    solid = rgba[..., 3:] > 127
    straight = np.where(solid, rgba, 0)
    straight[..., 3:] = np.where(solid, 255, 0)
    Image.fromarray(straight).save(picture(plain, 0))
    matted = np.where(solid, rgba, np.array([*MATTE, 0], np.uint8))
    matted[..., 3:] = np.where(solid, 0, 255)
    Image.fromarray(matted).save(picture(other, FRONT))
    description = json.loads((other / "dataset.json").read_text())
    said = {"matte": MATTE, "inverted_alpha": True, "portrait_frame": FRONT}
    (other / "dataset.json").write_text(json.dumps(description | {"version": 2, "pictures": said}))
    made = generated(chain, other, tmp_path / "out_other")
    assert torch.equal(made, generated(chain, plain, tmp_path / "out_plain"))
    # It does say something: frame 0 as it is on disk is another portrait.
    assert not np.array_equal(np.asarray(Image.open(picture(other, 0))), straight)
