"""The train step of a video model as shapes: nothing is allocated, so any size can be lowered for any mesh."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from osjax import models
from osjax.models.lora import Adapted, LoRAConfig
from osjax.models.velocity import VideoConfig
from osjax.parallel import rules, sharding
from osjax.parts import lora
from osjax.sampling.autoencoder import Autoencoder
from osjax.training import diffusion, optimizer, state
from osjax.training.state import TrainState
from osjax.types import LatentBatch, Tree

Same = TypeVar("Same")


@dataclass(frozen=True)
class TrainStep:
    """A train step as shapes. state, batch, key: its arguments, shapes with shardings.

    lower: gives the program. create: `params_fn -> state`, of real parameters. shardings: of the state.
    """

    lower: Callable[[], jax.stages.Lowered]
    state: TrainState
    batch: LatentBatch
    key: jax.ShapeDtypeStruct
    create: Callable[[Callable[[], Any]], TrainState]
    shardings: TrainState


def train_step(
    model_cfg: VideoConfig,
    opt: optimizer.OptimizerConfig,
    mesh: Mesh,
    batch: LatentBatch,
    adapters: LoRAConfig | None = None,
    base_dtype: str = "float32",
) -> TrainStep:
    """One update of a video model: noise, loss, gradients, AdamW.

    model_cfg: of the model. opt: settings of AdamW, the average and accumulation. mesh: where the step runs; its
    devices need not exist. batch: shapes with shardings, as `models.velocity.batch_of` gives them. adapters: what
    trains instead of the model; base_dtype: of the model beneath them, as `lora.base_dtype` says it.
    """
    tx = optimizer.make(opt)
    create = partial(state.create, tx=tx, with_ema=opt.ema_decay > 0)
    init = models.init_params if adapters is None else partial(lora.init, adapters)
    boxed = jax.eval_shape(lambda: create(lambda: init(model_cfg, jax.random.key(0))))
    shardings = sharding.of_boxed(boxed, mesh)
    shapes = placed(nn.unbox(boxed), shardings)
    if adapters is not None:
        beneath, places = base(model_cfg, adapters, base_dtype, mesh)
        shapes, shardings = shapes.replace(frozen=beneath), shardings.replace(frozen=places)
    step = sharding.jit_step(diffusion.make_step(models.build(model_cfg), tx, opt), shardings, mesh)
    key_type = jax.eval_shape(lambda: jax.random.key(0)).dtype
    key = jax.ShapeDtypeStruct((), key_type, sharding=sharding.replicated(mesh))
    return TrainStep(lambda: step.lower(shapes, batch, key), shapes, batch, key, create, shardings)


def base(model_cfg: VideoConfig, adapters: LoRAConfig, dtype: str, mesh: Mesh) -> tuple[Adapted, Adapted]:
    """Shapes with shardings of the model beneath adapters, and the shardings.

    model_cfg: of the model. adapters: of them. dtype: as `lora.base_dtype` says it. mesh: where it lies.
    """
    boxed = lora.abstract_base(model_cfg, dtype)
    places = sharding.of_boxed(boxed, mesh)
    beneath = placed(nn.unbox(boxed), places)
    return Adapted(beneath, None, adapters.scale), Adapted(places, None, adapters.scale)


def encode(module: nn.Module, size: tuple[int, int, int], rows: int, mesh: Mesh) -> Callable[[], jax.stages.Lowered]:
    """The program by which an autoencoder encodes clips, or the largest tile of them.

    module: the autoencoder's. size: frames, height, width. rows: clips at a time. mesh: what they are split over.
    """
    boxed = models.abstract_params(module.cfg)
    params = placed(nn.unbox(boxed), sharding.of_boxed(boxed, mesh, rules.AUTOENCODER))
    autoencoder = Autoencoder(module, params)
    return partial(autoencoder.lower, "encode", params, (rows, *size, 3), sharding.batch_sharding(mesh))


def placed(shapes: Same, shardings: Same, dtype: str | None = None) -> Same:
    """Shapes with shardings. shapes, shardings: trees of one structure. dtype: of floating ones; None keeps theirs."""

    def one(x, where):
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(x.shape, dtype if dtype and floating else x.dtype, sharding=where)

    return jax.tree.map(one, shapes, shardings)


def bytes_per_device(shapes: Tree) -> int:
    """Bytes that a tree of arrays takes on one device. shapes: of the arrays, with their shardings."""

    def one(x):
        shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
        return int(np.prod(shape, dtype=np.int64)) * x.dtype.itemsize

    return sum(one(x) for x in jax.tree.leaves(shapes))
