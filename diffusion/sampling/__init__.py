"""Noise schedules, pipelines and the sampling stages."""
