"""Networks of the triplane diffusion: base U-Net, upsampler, and what they are built of."""

from diffusion.networks.base import TriplaneUNet
from diffusion.networks.linear import LinearExpectation
from diffusion.networks.normalization import PlaneNormalization
from diffusion.networks.upsampler import TriplaneUpsampler

__all__ = ["LinearExpectation", "PlaneNormalization", "TriplaneUNet", "TriplaneUpsampler"]
