"""Captures of subjects: cameras, conventions, multi-view sets, imports, and a doctor."""
