"""Formats of files, checked where they are read."""
