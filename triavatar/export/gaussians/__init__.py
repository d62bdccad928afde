"""An avatar as 3D Gaussians: their drawing, their tuning, their files."""
