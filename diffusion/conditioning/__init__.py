"""Conditioning on portraits: multi-scale VAE features."""
