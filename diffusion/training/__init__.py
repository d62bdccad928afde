"""Training of the VAE, the base model and the upsampler."""
