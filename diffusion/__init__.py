"""Triplane diffusion: conditioning, networks, training and sampling."""
