"""What an autoencoder stage reaches on held-out clips: while it trains, and when it is finished."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from osjax import atomic
from osjax.parallel import host, rules, sharding
from osjax.parts.lpips import Distance
from osjax.training import ae_losses
from osjax.training.autoencoder import AutoencoderState

FILE = "held_out.json"  # in the folder of a finished stage
SHOWN = {"eval_psnr_db": "PSNR {:.2f} dB", "eval_lpips": "LPIPS {:.4f}", "eval_lpips_untrained": "LPIPS-like {:.4f}"}


class HeldOut:
    """batches: gives the videos (B, T, H, W, 3) of this process, the same whenever it is called."""

    def __init__(self, module: nn.Module, distance: Distance | None, mesh: Mesh, batches: Callable[[], list[Any]]):
        self.distance, self.mesh, self.batches = distance, mesh, batches
        self.videos: list[jax.Array] = []

        @jax.jit
        def errors(params: Any, perceptual: Any, video: jax.Array) -> tuple[jax.Array, ...]:
            got = module.apply({"params": params}, video)
            found = ae_losses.l1(got, video), ae_losses.mse(got, video)
            if distance is None:
                return found
            return *found, distance.module.apply({"params": perceptual}, video, got).mean()

        self.errors = errors

    def measure(self, params: Any, perceptual: Any) -> dict[str, float]:
        """L1, PSNR and, where the stage has one, LPIPS, means over all clips."""
        if not self.videos:
            self.videos = [host.to_global(video, self.mesh) for video in self.batches()]
        with sharding.under(self.mesh, rules.AUTOENCODER):
            found = [jax.device_get(self.errors(params, perceptual, video)) for video in self.videos]
        l1, mse, *distance = map(float, np.mean(found, axis=0))
        measured = {"eval_l1": l1, "eval_psnr_db": 10 * math.log10(4 / mse)}
        return measured | ({self.distance.name: distance[0]} if distance else {})

    def of_state(self, now: AutoencoderState) -> dict[str, float]:
        return self.measure(now.best(), now.perceptual)


def report(name: str, folder: Path, found: dict[str, float] | None) -> None:
    """Prints a line of what a stage reached, and keeps it in the stage's folder; None: what is kept there."""
    path = folder / FILE
    if jax.process_index() or not (found or path.exists()):
        return
    if found:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(found) + "\n")
    else:
        found = json.loads(path.read_text())
    print(f"{name}, held-out clips: {', '.join(how.format(found[k]) for k, how in SHOWN.items() if k in found)}")
