"""A built wheel, installed in an environment of its own and used from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PARTS = ("runtime", "captures", "renderer", "fitting", "diffusion", "photos", "studio", "likeness")
PARTS += ("triavatar", "studies", "configs")


def run(*command: str | Path, cwd: Path) -> str:
    # The project's own folder must not help.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The ``bin`` folder of a virtual environment with the wheel; packages come from this one's."""
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    parent = tmp_path_factory.mktemp("wheel")
    source = parent / "source"
    for name in PARTS:
        shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    if (PROJECT / "data" / "bundle").is_dir():
        shutil.copytree(PROJECT / "data" / "bundle", source / "data" / "bundle")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(parent)]
    run(*wheel, ".", cwd=source)
    venv = parent / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=parent)
    python = venv / "bin" / "python"
    (built,) = parent.glob("triavatar-*.whl")
    run(*pip, "--python", str(python), "install", "--no-deps", str(built), cwd=parent)
    purelib = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=parent
    )
    others = "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    Path(purelib.strip(), "others.pth").write_text(others)
    shutil.rmtree(source)
    return python.parent


def test_the_command_finds_its_configurations(installed, tmp_path):
    where = "import triavatar, renderer; print(triavatar.__file__, renderer.__file__)"
    for path in run(installed / "python", "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed.parent)
    flags = ["--root", "r", "--output_dir", "o", "--dry-run"]
    by_scale = run(installed / "triavatar", "train-vae", "--scale", "debug", *flags, cwd=tmp_path)
    by_name = ["train-vae", "--config", "debug/vae.yaml", *flags]
    assert by_scale == run(installed / "triavatar", *by_name, cwd=tmp_path)
    assert "steps: 200" in by_scale
    assert "debug" in run(installed / "triavatar", "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_readme_s_python_runs(installed, project, tmp_path):
    """From another folder, word by word but for pictures' sizes, with the wheel's model."""
    portrait = Image.open(project / "data/example/subject_000003/img_proc_fg_000000.png")
    white = Image.new("RGB", portrait.size, "white")
    white.paste(portrait, (0, 0), portrait)
    white.save(tmp_path / "me.jpg", quality=95)
    code = re.findall(r"```python\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line]) <= 6
    assert "azimuth=30" in code and "size=256" in code
    small = code.replace("azimuth=30", "azimuth=30, size=48").replace("size=256", "size=32")
    run(installed / "python", "-c", small, cwd=tmp_path)
    assert Image.open(tmp_path / "side.png").size == (48, 48)
    assert (tmp_path / "me.mp4").stat().st_size > 1000
    assert (tmp_path / "me" / "triplanes" / "me.safetensors").is_file()
    small = ["--views.size", "32", "--views.frames", "4", "--output_dir", "views"]
    made = run(installed / "triavatar", "render", "me", *small, cwd=tmp_path)
    assert "view" in made and (tmp_path / "views" / "view_+030.png").is_file()
