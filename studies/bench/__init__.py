"""Benchmarks: both sides in one process, with device, versions and command."""
