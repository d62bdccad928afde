"""Triplane fitting: the shared decoder (stage 1), one triplane per subject (stage 2)."""
