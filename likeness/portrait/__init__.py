"""A portrait and what is estimated of it: place, camera, light, surface, side views."""
