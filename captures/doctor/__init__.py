"""Checks of a multi-view set: what makes training on it look wrong, and the cure."""
