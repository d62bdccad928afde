"""Settings of ray marching; stages nest or inherit them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from runtime.config import own_first, setting


@dataclass(kw_only=True)
class MarchSettings:
    """Settings of ray marching, while fitting and afterwards."""

    steps: int = setting(1024, at_least=1, at_most=2**16)
    """Samples along the box's diagonal; the spacing is 2√3 / steps world units."""
    near: float = setting(0.2, at_least=0)
    """No sample lies closer to the camera, in world units."""
    stop: float = setting(1e-4, at_least=0, below=1)
    """Samples behind a transmittance below this are ignored."""
    grid: int = setting(128, at_least=1, at_most=512)
    """Cells along one side of the occupancy grid."""


@own_first
@dataclass(kw_only=True)
class RenderSettings(MarchSettings):
    """Settings of ray marching through a finished triplane."""

    threshold: float = setting(0.1, at_least=0)
    """A finished triplane's cell counts as occupied above this density (per world unit)."""
    color_threshold: float = setting(0.0, at_least=0)
    """Without gradients, samples that contribute less than this take the mean colour of their
    ray's others instead of one of their own; 0 computes every colour that shows."""

    @classmethod
    def like(cls, march: MarchSettings) -> RenderSettings:
        """A finished triplane's settings that march as others do."""
        return cls(**{field.name: getattr(march, field.name) for field in fields(MarchSettings)})
