"""The whole chain at a tiny scale: what each stage leaves, and what it is worth."""

import json

import imageio_ffmpeg
import numpy as np
import torch
from PIL import Image

from renderer.fitted_set import FittedSet
from triavatar import cli


def test_generated_avatars_are_complete(chain):
    folder = chain.out / "generate"
    fitted = FittedSet.open(folder)
    assert fitted.names == ["amber", "blue", "green", "held"]
    for name in fitted.names:
        planes = fitted.load(name)
        assert planes.shape == (3, 8, 16, 16) and planes.abs().max() <= 1
        avatar = folder / "avatars" / name
        assert Image.open(avatar / "view_+000.png").size == (16, 16)
        frames = imageio_ffmpeg.read_frames(str(avatar / "turntable.mp4"))
        assert next(frames)["source_size"] == (16, 16) and len(list(frames)) == 4
        assert Image.open(avatar / "sheet.png").width > 3 * 16


def test_generate_is_base_then_upsampler(chain):
    """The stage commands and ``generate`` make the same triplanes from the same seed."""
    generated = FittedSet.open(chain.out / "generate")
    sampled = FittedSet.open(chain.out / "sample-upsampler")
    for name in generated.names:
        assert torch.equal(generated.load(name), sampled.load(name))


def test_portraits_given_as_files_make_the_same_avatars(chain, tmp_path):
    portrait = tmp_path / "blue.png"
    portrait.write_bytes((chain.root / "blue" / "img_proc_fg_000000.png").read_bytes())
    arguments = chain.arguments("generate", tmp_path / "out")
    at = arguments.index("--root")
    arguments[at : at + 2] = ["--portraits", str(portrait)]
    assert cli.main(arguments) == 0
    one, all_of_them = FittedSet.open(tmp_path / "out"), FittedSet.open(chain.out / "generate")
    assert one.names == ["blue"]
    assert torch.equal(one.load("blue"), all_of_them.load("blue"))


def test_evaluation_measures_held_out_views(chain):
    result = json.loads((chain.out / "evaluate" / "metrics.json").read_text())
    assert result["frames"] == [3, 6] and result["views"] == "test"
    assert set(result["subjects"]) == {"amber", "blue", "green", "held"}
    # By hand, from the pictures on disk.
    name, values = "blue", []
    for frame in result["frames"]:
        true = np.asarray(Image.open(chain.root / name / f"img_proc_fg_{frame:06d}.png")) / 255
        white = true[..., :3] * true[..., 3:] + 1 - true[..., 3:]
        ours = np.asarray(Image.open(chain.out / "evaluate/views" / name / f"{frame:06d}.png"))
        values.append(-10 * np.log10(((ours / 255 - white) ** 2).mean()))
    assert abs(result["subjects"][name]["psnr"] - np.mean(values)) < 1e-3
    means = [result["subjects"][s]["psnr"] for s in ("amber", "blue", "green")]
    assert abs(result["mean_by_identity_split"]["train"]["psnr"] - np.mean(means)) < 1e-9
    match = result["match"]
    own = match["psnr"]["blue"][match["subjects"].index("blue")]
    assert abs(own - result["subjects"]["blue"]["psnr"]) < 1e-4


def test_longer_fitting_sees_the_subjects(chain, tmp_path):
    """Not only do the stages run: fitted longer, held-out views come out (untrained: 7 dB)."""
    longer = ["--inner_steps", "100", "--fit.rays", "256", "--fit.learning_rate", "0.05"]
    longer += ["--decoder_learning_rate", "0.01"]
    assert chain.run("fit-decoder", tmp_path / "fitted", *longer) == 0
    arguments = chain.arguments("evaluate", tmp_path / "evaluation")
    arguments[arguments.index("--triplanes") + 1] = str(tmp_path / "fitted")
    assert cli.main(arguments) == 0
    result = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert result["mean"]["psnr"] > 17 and result["match"]["of"] == 3


def test_report_shows_every_subject(chain, tmp_path, capsys):
    evaluation = str(chain.out / "evaluate")
    arguments = ["--evaluation", evaluation, "--fitted", evaluation, "--root", str(chain.root)]
    assert cli.main(["report", *arguments, "--output", str(tmp_path / "r.png")]) == 0
    # A portrait and twice two generated views and two true ones, in four rows.
    width, height = Image.open(tmp_path / "r.png").size
    assert width > 7 * 128 and height > 4 * 128
    assert "closest" in capsys.readouterr().out


def test_render_finds_the_decoder_beside_the_triplane(chain, tmp_path):
    triplane = chain.out / "fit-triplanes" / "triplanes" / "blue.safetensors"
    small = ["--views.size", "16", "--views.frames", "2", "--views.march.steps", "32"]
    assert (
        cli.main(["render", "--triplane", str(triplane), "--output_dir", str(tmp_path), *small])
        == 0
    )
    assert (tmp_path / "turntable.mp4").is_file() and (tmp_path / "view_-060.png").is_file()
