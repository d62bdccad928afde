"""Networks of the triplane diffusion: base U-Net, upsampler, and what they are built of."""

from diffusion.networks.base import TriplaneUNet
from diffusion.networks.mean_triplane import MeanTriplane
from diffusion.networks.upsampler import TriplaneUpsampler

__all__ = ["MeanTriplane", "TriplaneUNet", "TriplaneUpsampler"]
