"""Package data of triavatar; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'VERSION = "([^"]+)"', (here / "runtime/version.py").read_text())
packages = [
    "runtime",
    "captures",
    "renderer",
    "fitting",
    "diffusion",
    "photos",
    "studio",
    "likeness",
    "triavatar",
    "studies",
]

# People look for these in the project's root; in a wheel they are inside the package.
inside = {"triavatar.configs": "configs", "triavatar.bundle": "data/bundle"}
inside = {name: folder for name, folder in inside.items() if (here / folder).is_dir()}

setup(
    name="triavatar",
    version=version[1] if version else "0",
    description="3D head avatars from one portrait: triplane fitting and triplane diffusion",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="triavatar contributors",
    license="MIT",
    python_requires=">=3.10",
    package_dir={"": ".", **inside},
    packages=[
        *find_packages(include=[*packages, *(f"{name}.*" for name in packages)]),
        *inside,
    ],
    package_data={
        "renderer.cuda": ["kernels/*.cu", "kernels/*.cuh"],
        "triavatar": ["web/*.html"],
        **{
            name: [str(p.relative_to(here / folder)) for p in (here / folder).rglob("*.*")]
            + ["LICENSE"]
            for name, folder in inside.items()
        },
    },
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "diffusers>=0.31",
        "accelerate>=1.0",
        "transformers>=4.45",
        "safetensors>=0.4.5",
        "huggingface_hub>=0.25",
        "pillow>=10",
        "imageio-ffmpeg>=0.5",
        "scipy>=1.11",
        "numba>=0.60",
        "tqdm>=4.66",
        "tyro>=0.9",
        "dacite>=1.8",
        "pydantic>=2.5",
        "filelock>=3.16",
        "PyYAML>=6",
        "loky>=3.4",
    ],
    extras_require={
        "lpips": ["lpips>=0.1.4"],
        # OpenCV 5 no longer brings the face cascades.
        "portraits": ["opencv-python-headless>=4.9,<5"],
        "meshes": ["trimesh>=4"],
        "export": [
            "scikit-image>=0.22",
            "fast-simplification>=0.1.7",
            "xatlas>=0.0.9",
            "pygltflib>=1.16",
            "gsply>=0.4",
        ],
        # the charts of study forgetting
        "studies": ["matplotlib>=3.8"],
        "trackers": ["tensorboard>=2.16", "wandb>=0.17"],
        # spreads work over subjects on several machines
        "cluster": ["ray>=2.9"],
        "dev": [
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.8",
            "pyright>=1.1.380",
        ],
        # NVIDIA's runtime compiler for the kernels, where torch's own wheels don't bring it.
        "cuda12": ["nvidia-cuda-nvrtc-cu12>=12.4"],
        "cuda13": ["nvidia-cuda-nvrtc>=13"],
    },
    entry_points={"console_scripts": ["triavatar = triavatar.cli:main"]},
)
