"""Avatars as files that other programs open: meshes, Gaussians, pages."""
