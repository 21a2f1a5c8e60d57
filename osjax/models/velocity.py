"""What every video model promises, and the one place where a video model is asked for its velocity.

A video model predicts dx/dt of noisy latents. It is a linen module with
    cfg                               its frozen configuration
    inputs                            a `VideoInputs`: which latents, text and condition it takes
    check_latent(T, H, W, C)          UserError, in the words of its configuration, for a latent that does not fit
    check_attention()                 UserError where its attention cannot run on the mesh in force (`sharding.under`)
    pack(latents_BTHWC)               latents -> x_BNC, in which the loss is taken and a sampler integrates. Frames are
                                      outermost in N. The condition, of C + 1 channels, goes through it as well
    unpack(x_BNC, size)               the inverse; size: latent (T, H, W)
    velocity(x_BNC, size, t_B, txt_BMC, vec_BC, cond_BTHWC, strength_B) -> (B, N, C), for `apply(..., method=...)`
and its configuration offers `inputs` and `check_latent` too, for those who plan without a module, and
    countable()                       a configuration of the same model whose matrix products a tracer sees all
Training, sampling, planning and measuring ask for nothing else, so another family needs no edit of theirs.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from osjax.models import lora
from osjax.parallel import sharding
from osjax.types import LatentBatch

Size = tuple[int, int, int]  # latent frames, rows and columns


@dataclass(frozen=True)
class VideoInputs:
    """What a video model takes besides time.

    latent_channels: C of the latents. patch: side of the square of latent pixels that is one token; latent heights and
    widths are multiples of it. text_channels, pooled_channels: of the text states and of the pooled text vector.
    condition: whether it is given frames. guidance: whether it is told the strength of guidance, as distilled models.
    """

    latent_channels: int
    patch: int
    text_channels: int
    pooled_channels: int
    condition: bool
    guidance: bool

    def tokens(self, T: int, H: int, W: int) -> int:
        """Video tokens of a latent of T frames, H rows and W columns."""
        return T * (H // self.patch) * (W // self.patch)


class Given(NamedTuple):
    """What a video model is told besides the noisy latent and its time.

    txt_BMC: text states. vec_BC: pooled text. cond_BTHWC: the condition, mask channel first (C + 1 channels); None for
    models without. strength_B: of guidance, for models that are told it, else None.
    """

    txt_BMC: jax.Array
    vec_BC: jax.Array
    cond_BTHWC: jax.Array | None = None
    strength_B: jax.Array | None = None


def of_packed(module: nn.Module, params: Any, x_BNC: jax.Array, size: Size, t_B: jax.Array, given: Given) -> jax.Array:
    """Velocity of packed latents, in their shape and in the model's dtype.

    module: a video model. params: its parameters, or `Adapted` ones (models/lora.py). x_BNC: what its `pack` made of
    noisy latents. size: their (T, H, W), which N does not tell. t_B: times in [0, 1], 1 is noise. given: see `Given`.
    UserError where the model takes a condition or a strength that is missing, or does not take what is given.
    """
    return module.apply(lora.variables(params), x_BNC, size, t_B, *given, method="velocity")


def of_batch(module: nn.Module, params: Any, batch: LatentBatch, t_B: jax.Array) -> jax.Array:
    """Velocity of the latents of a batch, packed as the model packs them; see `of_packed`.

    batch: noisy latents (B, T, H, W, C) with their text and condition. t_B: their times.
    """
    latents_BTHWC, *given = batch
    return of_packed(module, params, module.pack(latents_BTHWC), latents_BTHWC.shape[1:4], t_B, Given(*given))


def batch_of(model_cfg: Any, latent: tuple[int, int, int, int], rows: int, text_tokens: int, mesh: Mesh | None):
    """`LatentBatch` of shapes, all float32, that a video model of this configuration takes; allocates nothing.

    latent: (T, H, W, C) of one clip. rows: clips. text_tokens: of a prompt. mesh: to split the rows over, or None.
    """
    where = None if mesh is None else sharding.batch_sharding(mesh)

    def f32(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), jnp.float32, sharding=where)

    inputs, (T, H, W, C) = model_cfg.inputs, latent
    cond = f32(T, H, W, C + 1) if inputs.condition else None
    return LatentBatch(f32(T, H, W, C), f32(text_tokens, inputs.text_channels), f32(inputs.pooled_channels), cond)
