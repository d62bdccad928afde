"""Cameras around an avatar.

Letters: N views.
"""

import torch

from captures.cameras import Cameras, orbit_cameras


def still_cameras(
    azimuths: tuple[float, ...], size: int, elevation: float, distance: float
) -> Cameras:
    """Return one camera per azimuth in degrees, counted from the front (+z) towards +x.

    Args:
        azimuths: N of them.
        size: picture width and height in pixels.
        elevation: degrees above the horizon.
        distance: from the origin, in world units.
    """
    # One orbit of one view per azimuth, joined.
    views = [
        orbit_cameras(
            1,
            size=size,
            elevation_degrees=elevation,
            distance=distance,
            azimuth_degrees=azimuth,
        )
        for azimuth in azimuths
    ]
    joined = {
        name: torch.cat([getattr(view, name) for view in views])
        for name in ("c2w", "fx", "fy", "cx", "cy")
    }
    return Cameras(width=size, height=size, **joined)
