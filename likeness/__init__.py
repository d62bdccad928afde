"""Likeness: an avatar that looks like its portrait, from a linear model of fitted people."""
