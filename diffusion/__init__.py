"""Triplane diffusion: conditioning, noise schedules, models, training and sampling."""
