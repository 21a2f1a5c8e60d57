"""How well an autoencoder reproduces videos: PSNR, SSIM, LPIPS, flicker, latent statistics, cost of tiling.

Command:   osjax eval recon VIDEOS --config.autoencoder.weights=dc_ae.safetensors --config.lpips=lpips_folder
Hardware:  1 device with 16 GB at full width; 2 CPU cores for what `osjax demo` trained (--workdir=runs/demo)
Time:      seconds a video on an accelerator
Expect:    LPIPS 0.051, PSNR 30.538, SSIM 0.863 of the released Video DC-AE (the report's Table 1)
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    cfg = ConfigDict()
    cfg.output = "runs/eval_recon"  # recon.json, recon.html, and an MP4 and a PNG of the first videos
    cfg.autoencoder = ConfigDict()
    cfg.autoencoder.workdir = placeholder(str)  # of a finished run: what was trained there, on its held-out clips
    cfg.autoencoder.weights = placeholder(str)  # or a weight file, or a folder of checkpoints
    cfg.autoencoder.family = "dcae"  # of `weights`: dcae, hunyuan or flux_ae
    cfg.autoencoder.config = ConfigDict()  # keys of its family's config; empty is the released one
    cfg.autoencoder.dtype = "float32"  # of the computation
    cfg.lpips = placeholder(str)  # its weights: a file or checkpoint, or a folder with vgg.pth and vgg16-397923af.pth
    cfg.data = ConfigDict()
    cfg.data.source = placeholder(str)  # a video, a folder of them, a table, or a data set of `osjax data build`
    cfg.data.frames = 32  # of each video; longer ones are cut, shorter ones left out
    cfg.data.height = 256  # pixels; videos are scaled to cover and centre-cropped
    cfg.data.width = 256
    cfg.data.fps_max = 24.0  # frames are left out by whole factors down to this rate
    cfg.data.limit = 0  # the first so many videos; 0: all
    cfg.tiling = ConfigDict()
    cfg.tiling.spatial_tile_size = 0  # pixels; 0: not tiled
    cfg.tiling.temporal_tile_size = 0  # frames
    cfg.tiling.tile_overlap_factor = 0.25
    cfg.tiling.compare = True  # where tiled, also in one piece, for the error of the seams
    cfg.show = 8  # videos that are also written to look at
    return cfg
