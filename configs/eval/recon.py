"""How well an autoencoder reproduces videos: PSNR, SSIM, LPIPS, flicker, latent statistics, cost of tiling.

Command:   osjax eval recon VIDEOS --config.autoencoder.weights=dc_ae.safetensors --config.lpips=lpips_folder
Hardware:  1 device with 16 GB at full width; 2 CPU cores for what `osjax demo` trained (--workdir=runs/demo)
Time:      seconds a video on an accelerator
Expect:    LPIPS 0.051, PSNR 30.538, SSIM 0.863 of the released Video DC-AE (the report's Table 1)
"""

from ml_collections import ConfigDict

from osjax.parts.groups import group
from osjax.parts.reconstruction import ReconstructionKeys


def get_config() -> ConfigDict:
    return group(ReconstructionKeys)
