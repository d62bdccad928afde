"""Networks of the triplane diffusion: base U-Net, upsampler, and what they are built of."""

from diffusion.models.base import TriplaneUNet
from diffusion.models.mean_triplane import MeanTriplane
from diffusion.models.upsampler import TriplaneUpsampler

__all__ = ["MeanTriplane", "TriplaneUNet", "TriplaneUpsampler"]
