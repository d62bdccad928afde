"""Memory stays level over many avatars, people and requests."""

import ctypes
import gc
import shutil
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from renderer.render import RenderSettings
from studio.sets.render_config import StudioRenderConfig
from studio.sets.render_set import render_set
from triavatar import AvatarPipeline, SamplingConfig, cli
from triavatar.view import ViewerConfig, ViewerServer

COUNT = 50


def megabytes() -> float:
    """Resident memory of this process, without what only waits to be used again."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError


def growth(work: Callable[[int], object]) -> float:
    """Megabytes that the last half of COUNT pieces of work take; the first half fills caches."""
    for index in range(COUNT // 2):
        work(index)
    before = megabytes()
    for index in range(COUNT // 2, COUNT):
        work(index)
    return megabytes() - before


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_avatars(chain, tmp_path):
    out = chain.out
    flags = ["--decoder", str(out / "fit-decoder"), "--base", str(out / "train-base")]
    flags += ["--upsampler", str(out / "train-upsampler")]
    flags += ["--vae", str(out / "train-vae" / "snapshots" / "model")]
    assert cli.main(["bundle", *flags, "--output_dir", str(tmp_path / "model")]) == 0
    pipeline = AvatarPipeline.from_pretrained(tmp_path / "model", device="cpu")
    portrait = np.asarray(Image.open(chain.root / "blue" / "img_proc_fg_000000.png"))
    sampling = SamplingConfig()
    sampling.base.steps = sampling.upsampler.steps = 2
    march = RenderSettings(steps=48, grid=16)

    def make(index: int) -> None:
        avatar = pipeline(portrait, name=f"anna{index}", sampling=sampling)
        avatar.picture(azimuth=index, size=64, settings=march)
        avatar.save(tmp_path / "avatars")

    assert growth(make) < 10


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_requests(chain, tmp_path):
    """Of more avatars than the viewer keeps in memory."""
    folder = shutil.copytree(chain.out / "fit-triplanes" / "triplanes", tmp_path / "planes")
    for index in range(8):
        shutil.copyfile(folder / "blue.safetensors", folder / f"blue{index}.safetensors")
    decoder = chain.out / "fit-decoder" / "decoder"
    march = RenderSettings(steps=48, grid=16)
    server = ViewerServer(ViewerConfig(folder, decoder=decoder, march=march, port=0, device="cpu"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    names = list(server.scene.triplanes)

    def ask(index: int) -> None:
        for step in range(4):
            name = names[(4 * index + step) % len(names)]
            address = f"{server.address}view?avatar={name}&azimuth={index}&size=64"
            with urllib.request.urlopen(address, timeout=60) as answer:
                assert answer.read()

    try:
        assert growth(ask) < 10
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert threading.active_count() < 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.assets
def test_people(assets, tmp_path):
    """The first people bring the assets that all share into memory."""

    def render(index: int) -> None:
        # Each is one more of the same set, so that no one is rendered twice.
        settings = {"n_views": 1, "size": 32, "test_subjects": 1, "validation_subjects": 0}
        shard = StudioRenderConfig(
            output_dir=tmp_path / f"set{index}", assets=assets, n_subjects=2, seed=index, **settings
        )
        render_set(shard)

    assert growth(render) < 60
