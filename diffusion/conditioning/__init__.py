"""What the models know of a portrait: multi-scale VAE features."""
