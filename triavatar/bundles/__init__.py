"""Bundles: a model as one folder, opened, checked, fetched and written."""
