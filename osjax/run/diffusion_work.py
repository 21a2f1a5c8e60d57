"""What a step of the video model works on: tokens and FLOPs, against the published peak of its devices."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from osjax import models
from osjax.ops import flops
from osjax.run import bench_measure
from osjax.training import diffusion
from osjax.training.throughput import Throughput, Work
from osjax.types import LatentBatch


def throughput(model_cfg: Any, trained: float, mesh: Mesh) -> Throughput:
    """trained: share of the parameters that train; 0 for adapters, whose own work is small.

    FLOPs are of a forward pass, one back to the tokens, and one back to the weights that train, whatever a step
    computes again: the usual three passes where all train.
    """
    # Flash kernels show no matrix products to a tracer; the dense form does the same ones.
    module = models.build(replace(model_cfg, attention="dense", remat="none"))
    params = nn.unbox(models.abstract_params(model_cfg))

    def measure(batch: Mapping[str, Any]) -> Work:
        rows, p = _shapes(model_cfg, batch), model_cfg.patch_size
        B, T, H, W, _ = rows.latents_BTHWC.shape
        times = jax.ShapeDtypeStruct((B,), np.float32)
        forward = flops.of_program(partial(diffusion.loss, module), params, rows, rows.latents_BTHWC, times)
        tokens = B * (T * (H // p) * (W // p) + rows.txt_BMC.shape[1])
        return Work(tokens, int(forward * (2 + trained)))

    one = bench_measure.published_peak(mesh.devices.flat[0])
    return Throughput(measure, one and one * 1e12 * mesh.size)


def _shapes(model_cfg: Any, batch: Mapping[str, Any]) -> LatentBatch:
    """Of what the model is given for a batch of the loader."""
    latents, txt, vec = (jax.ShapeDtypeStruct(batch[name].shape, np.float32) for name in ("latents", "txt", "vec"))
    cond = None
    if model_cfg.cond_embed:
        cond = jax.ShapeDtypeStruct((*latents.shape[:-1], latents.shape[-1] + 1), np.float32)
    return LatentBatch(latents, txt, vec, cond)
