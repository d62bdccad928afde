"""The page: what is in it, and what a browser shows of it."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from triavatar.export.bake import draw
from triavatar.views import still_cameras

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader "
    "--enable-unsafe-swiftshader --disable-background-networking --hide-scrollbars "
    "--force-device-scale-factor=1 --window-size=256,256 --virtual-time-budget=3000"
).split()


@pytest.fixture(scope="module")
def page(maker, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "ball.html"
    maker.write(path, "<ball> & co")
    return path


def test_page_needs_no_network(page):
    text = page.read_text()
    assert len(text) < 1e6 and "__DATA__" not in text and "__TITLE__" not in text
    assert "&lt;ball&gt; &amp; co" in text and "<ball>" not in text
    assert not re.search(r"(src|href)\s*=\s*.?(https?:)?//|@import|fetch\(|XMLHttpRequest", text)


def screenshot(page, folder, wishes: str) -> np.ndarray:
    """What a browser shows, [256, 256, 3] in [0, 1]."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("needs Chromium")
    shot = folder / "shot.png"
    command = [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--screenshot={shot}"]
    subprocess.run([*command, f"file://{page}#{wishes}"], capture_output=True, timeout=120)
    return np.asarray(Image.open(shot).convert("RGB")) / 255


@pytest.mark.parametrize("wishes, least", [("", 28.0), ("&pictures", 24.0)])
def test_browser_shows_the_avatar(page, maker, tmp_path, wishes, least):
    shown = screenshot(page, tmp_path, "still&bare&light&azimuth=45&elevation=5" + wishes)
    expected, hit = draw(maker.mesh, still_cameras((45.0,), 256, 5.0, 4.5), 0)
    assert shown.shape == (256, 256, 3)
    inside = hit & (shown.min(axis=2) < 0.99)
    assert inside.sum() > 0.97 * hit.sum() and hit.sum() > 5000
    error = np.square(shown - expected)[inside].mean()
    assert -10 * np.log10(error) > least
    assert (shown[~hit] > 0.98).mean() > 0.95


def test_browser_turns_and_darkens(page, tmp_path):
    front = screenshot(page, tmp_path, "still&bare&dark")
    back = screenshot(page, tmp_path, "still&bare&dark&azimuth=180")
    assert front[0, 0].max() < 0.2 and back[0, 0].max() < 0.2
    # Blue grows towards +z, where the front is.
    assert front[128, 128, 2] > back[128, 128, 2] + 0.1
