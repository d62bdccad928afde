"""Where a person stands in our world: every head has one size and one place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from studio.assets import AssetFolder
from studio.people.body import joint
from studio.people.bust import bust

HEAD_HEIGHT = 1.02  # chin to crown in world units
HEAD_MIDDLE = 0.17  # height of the head's middle in world units


def placement(assets: AssetFolder, base: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Map from base-mesh decimetres to our world: the head's size and place are fixed."""
    body = base[assets.base_mesh().groups["body"]]
    crown = body[:, 1].max()
    chin = base[bust(assets).chin, 1]
    head = body[body[:, 1] > chin]
    scale = HEAD_HEIGHT / (crown - chin)
    neck = joint(assets, base, "neck")
    middle_z = 0.5 * (0.5 * (head[:, 2].min() + head[:, 2].max()) + neck[2])
    origin = np.array([0.0, 0.5 * (crown + chin) - HEAD_MIDDLE / scale, middle_z])

    def to_house(points: np.ndarray) -> np.ndarray:
        return (points - origin) * scale

    return to_house
