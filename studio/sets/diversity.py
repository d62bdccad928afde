"""The diversity of a set's subjects: face shapes, principal components, counts, twins."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from runtime.config import check_settings, setting
from runtime.errors import UserError
from runtime.files import write_json
from runtime.progress import progress
from studio.assets import AssetFolder
from studio.people.body import shaped_vertices
from studio.people.bust import bust
from studio.people.random_subject import sample_subject
from studio.people.subject import Subject
from studio.people.words import labels

HEAD_MILLIMETRES = 225.0  # chin to crown of a grown-up; distances are given on that scale
COUNTED = ("age", "gender", "ancestry", "skin", "build", "hair", "eyes", "beard", "glasses", "hat")


@dataclass
class StudioDiversityConfig:
    """Measure how different the subjects of a seed are, without rendering them."""

    assets: Path | None = None
    """Folder with the clones makehuman/ and makehuman-assets/; default: $TRIAVATAR_ASSETS."""
    n_subjects: int = setting(1000, at_least=2, at_most=10**6)
    """Subjects to compare."""
    seed: int = 0
    """Seed of the set, as of `studio render`."""
    alike: float = 1.0
    """Two faces are alike when they differ by less than this root mean square, in millimetres on a
    head of 225 mm; twins are alike in face, hair, clothes and skin."""
    output: Path | None = None
    """JSON file for the figures; printed only, by default."""


def report_diversity(config: StudioDiversityConfig) -> None:
    """Print (and write) what `measure` finds.

    Raises:
        UserError: fewer than two subjects, or bad assets.
    """
    check_settings(config)
    assets = AssetFolder(config.assets)
    subjects, faces = [], []
    region = face_region(assets)
    bar = progress(total=config.n_subjects, desc="studio diversity", unit="subject")
    for index in range(config.n_subjects):
        subject = sample_subject(assets, config.seed, index)
        subjects.append(subject)
        faces.append(face_shape(assets, subject, region))
        bar.update()
    bar.close()
    figures = measure(np.stack(faces), subjects, config.alike)
    for key, value in figures.items():
        if isinstance(value, dict):
            print(f"{key}: " + ", ".join(f"{name} {n}" for name, n in value.items()))
        else:
            print(f"{key}: {value}")
    if config.output is not None:
        try:
            write_json(config.output, figures)
        except OSError as error:
            raise UserError(
                f"cannot write {config.output}: {error.strerror}; choose another output"
            ) from error


def face_region(assets: AssetFolder) -> np.ndarray:
    """Base-mesh vertices [K] of the head's surface from the chin up."""
    mesh = assets.base_mesh()
    body = mesh.groups["body"]
    chin = mesh.vertices[bust(assets).chin]
    p = mesh.vertices[body]
    return body[(p[:, 1] > chin[1] - 0.1) & (np.abs(p[:, 0]) < 1.2)]


def face_shape(assets: AssetFolder, subject: Subject, region: np.ndarray) -> np.ndarray:
    """The resting face [K, 3] without expression: centred, head height as HEAD_MILLIMETRES."""
    points = shaped_vertices(assets, replace(subject.shape, expression={}))
    head = points[region]
    height = head[:, 1].max() - points[bust(assets).chin, 1]
    return ((head - head.mean(0)) * (HEAD_MILLIMETRES / height)).astype(np.float32)


def pairwise_rms(faces: np.ndarray) -> np.ndarray:
    """Root mean square distance [N, N] between corresponding points of faces [N, K, 3]."""
    flat = faces.reshape(len(faces), -1).astype(np.float64)
    flat = flat - flat.mean(0)
    square = (flat**2).sum(1)
    distance = square[:, None] + square[None] - 2 * flat @ flat.T
    return np.sqrt(np.maximum(distance, 0) / faces.shape[1])


def components_for(faces: np.ndarray, share: float = 0.95) -> int:
    """Principal components that hold `share` of the variance of faces [N, K, 3]."""
    flat = faces.reshape(len(faces), -1).astype(np.float64)
    flat = flat - flat.mean(0)
    variance = np.linalg.eigvalsh(flat @ flat.T)[::-1].clip(0)
    return int(np.searchsorted(np.cumsum(variance) / variance.sum(), share) + 1)


def measure(faces: np.ndarray, subjects: list[Subject], alike: float) -> dict:
    """The figures of a set, JSON-ready.

    Args:
        faces: [N, K, 3] corresponding face points in millimetres.
        alike: see `StudioDiversityConfig`.
    """
    n = len(faces)
    distance = pairwise_rms(faces)
    pairs = distance[np.triu_indices(n, 1)]
    nearest = np.where(np.eye(n, dtype=bool), np.inf, distance).min(1)
    from_mean = np.sqrt(((faces - faces.mean(0)) ** 2).sum(-1).mean(1))
    words = [labels(subject) for subject in subjects]
    look = [(w["hair"], w["clothes"], w["hat"], w["skin"]) for w in words]
    first, second = np.nonzero(np.triu(distance < alike, 1))
    twins = sum(look[i] == look[j] for i, j in zip(first, second, strict=True))
    return {
        "subjects": n,
        "face distance from the mean, mm RMS (mean)": round(float(from_mean.mean()), 2),
        "face distance of a pair, mm RMS (mean, 5th percentile, least)": [
            round(float(v), 2) for v in (pairs.mean(), np.quantile(pairs, 0.05), pairs.min())
        ],
        "face distance to the nearest other, mm RMS (median)": round(float(np.median(nearest)), 2),
        "principal components for 95 % of variance": components_for(faces),
        f"pairs of faces closer than {alike} mm": len(first),
        "twins (such a pair with the same hair, clothes, hat and skin)": int(twins),
        "different sets of parameters": len({repr(s.attributes()) for s in subjects}),
        "different looks (hair, clothes, hat, skin in words)": len(set(look)),
        "clothes": len({w["clothes"] for w in words}),
        **{key: dict(Counter(w[key] for w in words).most_common()) for key in COUNTED},
        "garment": dict(Counter(s.clothes for s in subjects).most_common()),
        "pattern": dict(Counter(s.pattern for s in subjects).most_common()),
    }
