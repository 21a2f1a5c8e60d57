"""The train step of a video model as shapes: nothing is allocated, so any size can be lowered for any mesh."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from osjax import models
from osjax.models.mmdit import patch
from osjax.ops import flops
from osjax.parallel import rules, sharding
from osjax.sampling.autoencoder import Autoencoder
from osjax.training import diffusion, optimizer, state
from osjax.types import LatentBatch


@dataclass(frozen=True)
class TrainStep:
    """state, batch, key: shapes with shardings. create: `params_fn -> state`."""

    lower: Callable[[], jax.stages.Lowered]
    state: Any
    batch: LatentBatch
    key: jax.ShapeDtypeStruct
    create: Callable[[Callable[[], Any]], Any]
    shardings: Any


def train_step(model_cfg: Any, opt: optimizer.OptimizerConfig, mesh: Mesh, batch: LatentBatch) -> TrainStep:
    """One update of an MMDiT: noise, loss, gradients, AdamW."""
    tx = optimizer.make(opt)
    create = partial(state.create, tx=tx, with_ema=opt.ema_decay > 0)
    boxed = jax.eval_shape(lambda: create(lambda: models.init_params(model_cfg, jax.random.key(0))))
    shardings = sharding.of_boxed(boxed, mesh)
    shapes = placed(nn.unbox(boxed), shardings)
    step = sharding.jit_step(diffusion.make_step(models.build(model_cfg), tx, opt), shardings, mesh)
    key_type = jax.eval_shape(lambda: jax.random.key(0)).dtype
    key = jax.ShapeDtypeStruct((), key_type, sharding=sharding.replicated(mesh))
    return TrainStep(lambda: step.lower(shapes, batch, key), shapes, batch, key, create, shardings)


def batch_of(
    model_cfg: Any, latent: tuple[int, int, int, int], rows: int, text_tokens: int, mesh: Mesh | None
) -> LatentBatch:
    """Shapes of a batch of latents (T, H, W, C), split over the mesh where there is one."""
    where = None if mesh is None else sharding.batch_sharding(mesh)

    def f32(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), jnp.float32, sharding=where)

    T, H, W, C = latent
    cond = f32(T, H, W, C + 1) if model_cfg.cond_embed else None
    return LatentBatch(f32(T, H, W, C), f32(text_tokens, model_cfg.context_in_dim), f32(model_cfg.vec_in_dim), cond)


def encode(module: nn.Module, size: tuple[int, int, int], rows: int, mesh: Mesh) -> Callable[[], jax.stages.Lowered]:
    """The program by which an autoencoder encodes clips, or the largest tile of them.

    module: the autoencoder's. size: frames, height, width. rows: clips at a time. mesh: what they are split over.
    """
    boxed = models.abstract_params(module.cfg)
    params = placed(nn.unbox(boxed), sharding.of_boxed(boxed, mesh, rules.AUTOENCODER))
    autoencoder = Autoencoder(module, params)
    return partial(autoencoder.lower, "encode", params, (rows, *size, 3), sharding.batch_sharding(mesh))


def velocity(module: nn.Module, params: Any, batch: LatentBatch, t_B: jax.Array) -> jax.Array:
    """One call of the model on a batch."""
    B, T, H, W, _ = batch.latents_BTHWC.shape
    p = module.cfg.patch_size
    img, cond = (None if x is None else patch.pack(x, p) for x in (batch.latents_BTHWC, batch.cond_BTHWC))
    img_ids, txt_ids = patch.img_ids(B, T, H, W, p), patch.txt_ids(B, batch.txt_BMC.shape[1])
    return module.apply({"params": params}, img, img_ids, batch.txt_BMC, txt_ids, t_B, batch.y_vec_BC, cond)


def forward_flops(model_cfg: Any, batch: LatentBatch) -> int:
    """Of one call of the model on the whole batch. A training step counts three, whatever is computed again."""
    rows, T, H, W, C = batch.latents_BTHWC.shape
    text, p = batch.txt_BMC.shape[1], model_cfg.patch_size
    # Attention makes it a quadratic in the number of video tokens: three small videos tell it exactly.
    # Flash kernels show no matrix products to a tracer; the dense form does the same ones. No mesh or policy matters.
    plain = replace(model_cfg, attention="dense", remat="none", remat_blocks=None)
    one, two, three = (_traced_flops(plain, n, C, text) for n in (1, 2, 3))
    n = T * (H // p) * (W // p) - 1
    return rows * (one + n * (two - one) + n * (n - 1) // 2 * (three - 2 * two + one))


@lru_cache
def _traced_flops(model_cfg: Any, frames: int, channels: int, text: int) -> int:
    """Of one clip of one token a frame."""
    params = nn.unbox(models.abstract_params(model_cfg))
    batch = batch_of(model_cfg, (frames, model_cfg.patch_size, model_cfg.patch_size, channels), 1, text, None)
    times = jax.ShapeDtypeStruct((1,), jnp.float32)
    return flops.of_program(partial(velocity, models.build(model_cfg)), params, batch, times)


def tokens(batch: LatentBatch, p: int) -> int:
    """Video and text tokens of a batch."""
    B, T, H, W, _ = batch.latents_BTHWC.shape
    return B * (T * (H // p) * (W // p) + batch.txt_BMC.shape[1])


def placed(shapes: Any, shardings: Any, dtype: str | None = None) -> Any:
    """Shapes with shardings, floating ones in `dtype`."""

    def one(x, where):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(x.shape, dtype if dtype and floating else x.dtype, sharding=where)

    return jax.tree.map(one, shapes, shardings)


def bytes_per_device(shapes: Any) -> int:
    """Of arrays as shapes with shardings, on one device."""

    def one(x):
        shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
        return int(np.prod(shape, dtype=np.int64)) * x.dtype.itemsize

    return sum(one(x) for x in jax.tree.leaves(shapes))
