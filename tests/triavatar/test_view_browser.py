"""The viewer's page in a real browser: orbiting, expressions, a photograph dropped on it."""

import io
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from renderer.fitted_set import FittedSet
from renderer.render import RenderSettings
from tests.triavatar.export.ball import ball_decoder, ball_planes
from triavatar.view import ViewerConfig, ViewerServer

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SOFTWARE = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 900_000
"""Milliseconds that the page may take for an avatar on a busy machine without a GPU."""
ORBIT = """async () => {
  const begun = performance.now();
  let own = 0;
  for (let i = 0; i < 24; i++) {
    turn(5, 0);
    own += document.getElementById("picture").classList.contains("behind");
    await new Promise(requestAnimationFrame);
  }
  return [own, 24000 / (performance.now() - begun)];
}"""


@pytest.fixture
def served(tmp_path):
    """A viewer with a model for photographs, and one page of it in a browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("needs Chromium")
    planes = ball_planes()
    FittedSet.create(tmp_path / "set", ball_decoder(), tuple(planes.shape)).put("ball", planes)
    config = ViewerConfig(
        tmp_path / "set",
        size=64,
        march=RenderSettings(steps=192, grid=48),
        model="shipped",
        output_dir=tmp_path / "made",
        port=0,
        device="cpu",
    )
    server = ViewerServer(config)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=browser, args=["--no-sandbox", *SOFTWARE], timeout=PATIENCE
        )
        page = chromium.new_page(viewport={"width": 800, "height": 420})
        page.set_default_timeout(PATIENCE)
        page.goto(server.address)
        yield page, tmp_path
        chromium.close()
    server.shutdown()
    thread.join()
    server.server_close()


def stage(page) -> np.ndarray:
    """What the middle of the page shows, [H, W, 3] in [0, 1]."""
    shot = Image.open(io.BytesIO(page.locator("#stage").screenshot()))
    return np.asarray(shot.convert("RGB")) / 255


def ready(page) -> None:
    """Wait until the browser draws by itself and a picture of the full size is there."""
    page.wait_for_function("paint !== null")
    page.wait_for_function("document.getElementById('status').textContent.startsWith('64²')")


@pytest.mark.slow  # learns a stranger's likeness in full
def test_a_photograph_becomes_an_avatar_that_pulls_faces(served):
    data = pytest.importorskip("matplotlib.cbook")
    page, folder = served
    ready(page)
    ball = stage(page)
    own, rate = page.evaluate(ORBIT)
    print(f"orbiting: {rate:.0f} pictures a second, drawn by the browser in software")
    assert own == 24  # no picture of the renderer's is waited for
    photograph = Path(data.get_sample_data("grace_hopper.jpg", asfileobj=False))
    page.set_input_files("#photograph", photograph)
    page.wait_for_function("document.getElementById('avatar').value === 'photograph_1'")
    ready(page)
    assert (folder / "made" / "triplanes" / "photograph_1.safetensors").is_file()
    person = stage(page)
    assert np.abs(person - ball).mean() > 0.05
    page.click("#talk")
    page.wait_for_function("!document.getElementById('picture').classList.contains('behind')")
    talking = stage(page)
    changed = np.abs(talking - person).max(axis=2) > 0.15
    rows, columns = np.nonzero(changed)
    assert 20 < changed.sum() < 0.2 * changed.size
    # What changes lies around the mouth: in the middle, below the half.
    assert abs(np.median(columns) / changed.shape[1] - 0.5) < 0.1
    assert np.median(rows) / changed.shape[0] > 0.4
    assert page.text_content("#error").strip() == ""
