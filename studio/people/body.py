"""The shaped base mesh: macro targets (age, gender, ancestry, weight, muscle) and face targets.

The macro targets are products of piecewise-linear hat functions on each axis: a target named
"african-female-child" acts with weight ancestry × gender × age, "universal-male-old-maxmuscle-
minweight" with gender × age × muscle × weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from studio.assets import AssetFolder

AGES = {"baby": 1.0, "child": 10.0, "young": 25.0, "old": 90.0}
LEVELS = {"min": 0.0, "average": 0.5, "max": 1.0}
ANCESTRIES = ("african", "asian", "caucasian")


@dataclass
class Shape:
    """The shape of the body.

    Args:
        age: years, 1..90.
        gender: 0 female .. 1 male.
        ancestry: weights over ANCESTRIES, summing to 1.
        weight: 0 thin .. 1 heavy.
        muscle: 0 .. 1.
        face: target name → weight (0..1), e.g. {"nose/nose-hump-incr": 0.3}.
        expression: expression-unit name → weight (0..1), e.g. {"mouth-corner-puller": 0.4}.
    """

    age: float = 25.0
    gender: float = 0.5
    ancestry: dict[str, float] = field(default_factory=lambda: {"caucasian": 1.0})
    weight: float = 0.5
    muscle: float = 0.5
    face: dict[str, float] = field(default_factory=dict)
    expression: dict[str, float] = field(default_factory=dict)


def hat_weights(value: float, stops: dict[str, float]) -> dict[str, float]:
    """Piecewise-linear weights (summing to 1) of named stops at `value`, clamped at the ends."""
    names = list(stops)
    places = np.array([stops[name] for name in names])
    rows = np.eye(len(names))
    weights = [float(np.interp(value, places, rows[:, i])) for i in range(len(names))]
    return {name: w for name, w in zip(names, weights, strict=True) if w > 0}


def macro_weights(shape: Shape) -> dict[str, float]:
    """Target name → weight for the macro targets of `shape`."""
    ages = hat_weights(shape.age, AGES)
    genders = hat_weights(shape.gender, {"female": 0.0, "male": 1.0})
    muscles = hat_weights(shape.muscle, LEVELS)
    weights = hat_weights(shape.weight, LEVELS)
    out: dict[str, float] = {}
    for gender, g in genders.items():
        for age, a in ages.items():
            for ancestry, r in shape.ancestry.items():
                if r > 0:
                    out[f"macrodetails/{ancestry}-{gender}-{age}"] = r * g * a
            for muscle, m in muscles.items():
                for weight, w in weights.items():
                    name = f"universal-{gender}-{age}-{muscle}muscle-{weight}weight"
                    out[f"macrodetails/{name}"] = g * a * m * w
    return out


def target_weights(shape: Shape) -> dict[str, float]:
    """Every target that acts on `shape`, with its weight."""
    out = macro_weights(shape)
    out.update({name: w for name, w in shape.face.items() if w})
    for unit, w in shape.expression.items():
        for ancestry, r in shape.ancestry.items():
            if w and r > 0:
                out[f"expression/units/{ancestry}/{unit}"] = w * r
    return out


def shaped_vertices(assets: AssetFolder, shape: Shape) -> np.ndarray:
    """Base-mesh vertices [19158, 3] (decimetres, rest pose) with all targets of `shape` applied."""
    vertices = assets.base_mesh().vertices.copy()
    for name, weight in target_weights(shape).items():
        index, offset = assets.target(name)
        vertices[index] += weight * offset
    return vertices


def joint(assets: AssetFolder, vertices: np.ndarray, name: str) -> np.ndarray:
    """Position [3] of joint `name` ("neck", "head", "l-eye", …): its marker cube's centre."""
    return vertices[assets.base_mesh().groups[f"joint-{name}"]].mean(0)
