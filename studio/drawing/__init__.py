"""Meshes, textures and the rasteriser."""
