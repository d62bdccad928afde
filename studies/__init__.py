"""Measurement: benchmarks and studies of the method."""
