"""Damaged files of every format, for tests that feed them to the commands."""
