"""Foreign captures to multi-view sets: COLMAP, NeRF-style transforms, RodinHD-layout folders."""
