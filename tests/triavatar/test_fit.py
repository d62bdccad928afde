"""``triavatar fit``: what is read, and the sentences for what can't be."""

import shutil

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from captures.cameras import orbit_cameras
from captures.multiview import MultiViewSet
from runtime.errors import UserError
from triavatar import AvatarPipeline, cli
from triavatar.fit.captured import CaptureSettings, capture_of, kind_of, read_capture
from triavatar.fit.video import video_frames


class Squares:
    """Takes every picture but black ones, as it is."""

    def __call__(self, picture, name="the picture"):
        array = np.asarray(Image.open(picture)) if not isinstance(picture, np.ndarray) else picture
        if array[..., :3].max() < 40:
            raise UserError(f"{name} is too dark")
        return array


def write_video(path, frames):
    height, width = frames[0].shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=10, macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def test_kinds_are_told_apart(tmp_path, project):
    for name in ("a.png", "b.jpg", "clip.mp4", "head.glb"):
        (tmp_path / name).write_bytes(b"x")
    pictures = [tmp_path / "a.png", tmp_path / "b.jpg"]
    assert kind_of(pictures) == "pictures"
    assert kind_of([tmp_path / "clip.mp4"]) == "video"
    assert kind_of([tmp_path / "head.glb"]) == "mesh"
    assert kind_of([project / "data" / "example" / "subject_000003"]) == "subject"
    (tmp_path / "nerf").mkdir()
    (tmp_path / "nerf" / "transforms.json").write_text("{}")
    assert kind_of([tmp_path / "nerf"]) == "transforms"
    with pytest.raises(UserError, match=r"head\.glb is fitted by itself"):
        kind_of([*pictures, tmp_path / "head.glb"])
    with pytest.raises(UserError, match="there is no"):
        kind_of([tmp_path / "missing"])
    with pytest.raises(UserError, match="fit needs pictures"):
        kind_of([])


def test_pictures_that_cannot_be_used_are_left_out(tmp_path):
    for index, level in enumerate((200, 0, 90)):
        Image.new("RGBA", (16, 16), (level,) * 3 + (255,)).save(tmp_path / f"{index}.png")
    found = read_capture([tmp_path], CaptureSettings(), Squares(), None)
    assert len(found.pictures) == 2 and found.cameras is None
    assert "1.png is too dark" in found.left_out[0]
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "2.png")
    with pytest.raises(UserError, match="too dark"):
        read_capture([tmp_path], CaptureSettings(), Squares(), None)


def test_a_video_gives_its_sharpest_usable_frames(tmp_path):
    rows = np.random.default_rng(0).integers(60, 255, (48, 64, 3)).astype(np.uint8)
    frames = [np.full((48, 64, 3), 120, np.uint8) for _ in range(30)]
    frames[4] = rows  # the only sharp one of the first third
    frames[10:20] = [np.zeros((48, 64, 3), np.uint8)] * 10
    write_video(tmp_path / "clip.mp4", frames)
    moments = list(video_frames(tmp_path / "clip.mp4", 3))
    assert [len(group) for _, group in moments] == [3, 3, 3]
    found = read_capture([tmp_path / "clip.mp4"], CaptureSettings(frames=3), Squares(), None)
    assert found.kind == "video" and len(found.pictures) == 2
    assert found.pictures[0].shape == (48, 64, 4) and found.pictures[0].std() > 40
    assert "clip.mp4 at" in found.left_out[0]
    (tmp_path / "clip.mp4").write_bytes(b"no video at all")
    with pytest.raises(UserError, match="not a readable video"):
        list(video_frames(tmp_path / "clip.mp4", 3))


def test_a_subject_of_a_set_keeps_its_cameras(project):
    root = project / "data" / "example"
    found = read_capture([root / "subject_000003"], CaptureSettings(most=5), Squares(), None)
    true = MultiViewSet(root).load("subject_000003", [0])
    assert len(found.pictures) == len(found.cameras) == 5
    assert np.array_equal(found.pictures[0], true.images[0])
    assert (found.cameras.c2w[0] == true.cameras.c2w[0]).all()
    with pytest.raises(UserError, match="holds 10 people; give the folder of one"):
        read_capture([root], CaptureSettings(), Squares(), None)


def test_views_without_the_person_are_left_out(project, tmp_path):
    source = project / "data" / "example"
    folder = shutil.copytree(source / "subject_000003", tmp_path / "subject_000003")
    shutil.copyfile(source / "dataset.json", tmp_path / "dataset.json")
    first, other = (folder / f"img_proc_fg_{i:06d}.png" for i in (0, 5))
    Image.new("RGBA", Image.open(other).size).save(other)
    found = read_capture([folder], CaptureSettings(), Squares(), None)
    whole = len(list(folder.glob("metadata_*.json")))
    assert len(found.pictures) == len(found.cameras) == len(found.names) == whole - 1
    assert found.left_out == ["subject_000003, view 5 is transparent."]
    Image.new("RGBA", Image.open(first).size).save(first)
    with pytest.raises(UserError, match="its view 0, the portrait, is transparent"):
        read_capture([folder], CaptureSettings(), Squares(), None)
    first.with_name("metadata_000000.json").unlink()
    assert kind_of([folder]) == "subject"  # a damaged one


def test_pictures_in_memory_need_as_many_cameras(project):
    pictures = [np.full((16, 16, 4), 255, np.uint8)] * 3
    how = (Squares(), None, CaptureSettings(), None)
    found, name = capture_of(pictures, *how)
    assert len(found.pictures) == 3 and name == "avatar"
    cameras = orbit_cameras(2, size=16)
    with pytest.raises(UserError, match="3 pictures but 2 cameras"):
        capture_of(pictures, how[0], cameras, how[2], None)


def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path, capsys):
    (tmp_path / "head.glb").write_bytes(b"glTF but not really")
    out = tmp_path / "out"
    for source in (tmp_path / "head.glb", tmp_path / "nothing", tmp_path):
        assert cli.main(["fit", str(source), "--output_dir", str(out)]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and str(source.name) in error
    assert not out.exists()


@pytest.mark.slow  # a minute of one core with the model that comes along
def test_three_pictures_of_a_stranger_beat_one(project):
    from fitting.subject_fit import held_out_quality
    from renderer.render import RenderSettings

    pipeline = AvatarPipeline.from_pretrained(device="cpu")
    views = MultiViewSet(project / "data" / "example")
    given = views.load("subject_000008", [0, 14, 35])
    test = views.load("subject_000008", [5, 8, 12, 18, 21, 28, 32])
    march = RenderSettings(steps=160, grid=64)

    def quality(avatar) -> float:
        return held_out_quality(avatar.planes, avatar.decoder, test, march).mean_psnr

    one = quality(pipeline(given.images[0]))
    several = quality(pipeline.fit(list(given.images), cameras=given.cameras))
    assert several > one + 2
    # Without cameras they are estimated.
    unknown = pipeline.fit(list(given.images))
    assert quality(unknown) > one + 0.5
    assert sorted(unknown.record["fit"]["azimuths"]) == pytest.approx([-28, 0, 25], abs=10)
