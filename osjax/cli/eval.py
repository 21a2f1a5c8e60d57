"""`osjax eval recon`: PSNR, SSIM, LPIPS, flicker and latent statistics of an autoencoder on videos."""

from ml_collections import ConfigDict

from osjax.bench import reconstruction
from osjax.parts.groups import to_dataclass
from osjax.parts.reconstruction import ReconstructionKeys


def add_options(parser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, parser_class=type(parser))
    text = "PSNR, SSIM, LPIPS, flicker and latent statistics of an autoencoder"
    step = steps.add_parser("recon", description=text, help=text)
    step.add_argument("source", nargs="?", metavar="VIDEOS", help="instead of config.data.source")
    step.add_argument("--workdir", help="of a finished run, instead of config.autoencoder.workdir")
    step.add_argument("--output", help="folder to write to, instead of config.output")


def run(cfg: ConfigDict, args) -> None:
    cfg.data.source = args.source or cfg.data.source
    cfg.autoencoder.workdir = args.workdir or cfg.autoencoder.workdir
    cfg.output = args.output or cfg.output
    reconstruction.run(to_dataclass(ReconstructionKeys, cfg, ""))
