"""Synthetic people and their multi-view pictures."""
