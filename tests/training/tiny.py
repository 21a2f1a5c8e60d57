"""A tiny MMDiT, its batches, and a state and compiled step for it on any mesh."""

from functools import cache

import flax.linen as nn
import jax
import numpy as np

from osjax import models
from osjax.parallel import mesh as meshes
from osjax.parallel import sharding
from osjax.training import checkpoint, diffusion, optimizer
from osjax.training import state as states
from osjax.types import LatentBatch

CONFIG = models.config(
    "mmdit",
    in_channels=16,
    vec_in_dim=12,
    context_in_dim=20,
    hidden_size=64,
    mlp_ratio=2.0,
    num_heads=4,
    depth=1,
    depth_single_blocks=2,
    axes_dim=(4, 6, 6),
    patch_size=2,
)
ADAM = optimizer.OptimizerConfig(lr=1e-3, eps=1e-8, ema_decay=0.9)


def mesh_of(*sizes):
    """Mesh of data, fsdp, sequence (and tensor) sizes, over as many of the eight devices as they need."""
    return meshes.make(*sizes, devices=jax.devices()[: int(np.prod(sizes))])


def single():
    return mesh_of(1, 1, 1, 1)


def batch(rows=8, seed=0) -> LatentBatch:
    """Numpy rows with two frames of 4 x 8 latent pixels, 16 tokens, and 8 text tokens."""
    draw = np.random.default_rng(seed).standard_normal

    def f32(*shape):
        return draw((rows, *shape)).astype(np.float32)

    return LatentBatch(f32(2, 4, 8, 4), f32(8, 20), f32(12), f32(2, 4, 8, 5))


def boxed():
    """Shapes of the parameters with their logical names."""
    return models.abstract_params(CONFIG)


@cache
def host_params():
    """Parameters, none of them zero: fresh final layers would hide every gradient before them.

    Made by numpy: compiling the random numbers of every initialiser takes longer than all else here.
    """
    draw = np.random.default_rng(1).standard_normal

    def one(path, x):
        scale = "scale" in jax.tree_util.keystr(path)
        fan_in = x.shape[-2] if len(x.shape) > 1 else 1
        return (scale + (0.1 if scale else fan_in**-0.5) * draw(x.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, nn.unbox(boxed()))


def params_on(mesh):
    return jax.tree.map(jax.device_put, host_params(), sharding.of_boxed(boxed(), mesh))


def start(mesh, cfg=ADAM):
    """(state on the mesh, abstract state, step compiled for the mesh)."""
    create, abstract, step = _compiled(mesh, cfg)
    return create(params_on(mesh)), abstract, step


@cache  # compilation is most of the time of these tests, and equal meshes are equal keys
def _compiled(mesh, cfg):
    tx = optimizer.make(cfg)

    def create(params):
        return states.create(lambda: params, tx, with_ema=cfg.ema_decay > 0, freeze=cfg.freeze)

    shapes = jax.eval_shape(create, boxed())
    shardings = sharding.of_boxed(shapes, mesh)
    step = diffusion.make_step(models.build(CONFIG), tx, cfg)
    abstract = checkpoint.abstract_like(nn.unbox(shapes), shardings)
    return jax.jit(create, out_shardings=shardings), abstract, sharding.jit_step(step, shardings, mesh)


def run_key(mesh):
    return sharding.random_key(7, mesh)


def worst(got, want) -> float:
    """Largest relative error of any leaf: max|a-b| / max|b|."""
    errors = jax.tree.map(lambda a, b: float(np.abs(np.asarray(a) - b).max() / (np.abs(b).max() + 1e-30)), got, want)
    return max(jax.tree.leaves(errors))


def same(a, b) -> bool:
    """Bit equality of two trees."""
    pairs = zip(jax.tree.leaves(jax.device_get(a)), jax.tree.leaves(jax.device_get(b)), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)
