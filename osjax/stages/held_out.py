"""What an autoencoder stage reaches on held-out clips: while it trains, and when it is finished."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from osjax import atomic, json_file
from osjax.errors import UserError
from osjax.parallel import host, rules, sharding
from osjax.parts.lpips import Distance
from osjax.training import ae_losses
from osjax.training.autoencoder import AutoencoderState
from osjax.types import NamedTree, Tree

log = logging.getLogger(__name__)
FILE = "held_out.json"  # in the folder of a finished stage
SHOWN = {"eval_psnr_db": "PSNR {:.2f} dB", "eval_lpips": "LPIPS {:.4f}", "eval_lpips_untrained": "LPIPS-like {:.4f}"}


class HeldOut:
    """Held-out clips that an autoencoder is measured on.

    module: the autoencoder. distance: LPIPS, or None. batches: gives the videos (B, T, H, W, 3) of this process as
    levels, the same whenever it is called.
    """

    def __init__(self, module: nn.Module, distance: Distance | None, mesh: Mesh, batches: Callable[[], list[Any]]):
        self.distance, self.mesh, self.batches = distance, mesh, batches
        self.videos: list[jax.Array] = []

        @jax.jit
        def errors(params: Tree, perceptual: Tree, video: jax.Array) -> tuple[jax.Array, ...]:
            got = module.apply({"params": params}, video)
            of_pixels = ae_losses.l1(got, video), ae_losses.mse(got, video)
            if distance is None:
                return of_pixels
            return *of_pixels, distance.module.apply({"params": perceptual}, video, got).mean()

        self.errors = errors

    def measure(self, params: NamedTree, perceptual: NamedTree | None) -> dict[str, float]:
        """L1, PSNR in dB and, where the stage has one, LPIPS: means over all clips, by the names of metrics.

        params: of the autoencoder. perceptual: of LPIPS, or None.
        """
        if not self.videos:
            self.videos = [host.pixels_to_global(video, self.mesh) for video in self.batches()]
        with sharding.under(self.mesh, rules.AUTOENCODER):
            by_batch = [jax.device_get(self.errors(params, perceptual, video)) for video in self.videos]
        l1, mse, *distance = map(float, np.mean(by_batch, axis=0))
        measured = {"eval_l1": l1, "eval_psnr_db": 10 * math.log10(4 / mse)}
        return measured | ({self.distance.name: distance[0]} if distance else {})

    def of_state(self, now: AutoencoderState) -> dict[str, float]:
        return self.measure(now.best(), now.perceptual)


def report(name: str, folder: Path, measured: dict[str, float] | None) -> None:
    """Print a line of what a stage reached, and keep it in the stage's folder.

    name, folder: of the stage. measured: what `HeldOut.measure` gave; None prints what the folder keeps, if it does.
    """
    path = folder / FILE
    if jax.process_index() or not (measured or path.exists()):
        return
    if measured:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(measured) + "\n")
    else:
        try:
            measured = {key: float(value) for key, value in json_file.read(path, "it is left out").items()}
        except (UserError, ValueError, TypeError) as error:  # nothing depends on it
            log.warning("what %s reached is not known: %s", name, error)
            return
    shown = [how.format(measured[key]) for key, how in SHOWN.items() if key in measured]
    print(f"{name}, held-out clips: {', '.join(shown)}")
