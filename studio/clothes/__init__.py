"""Clothes and hats with their patterns."""
