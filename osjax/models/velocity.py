"""What every video model promises, and the one place where a video model is asked for its velocity.

A video model predicts dx/dt of noisy latents. Its module keeps the promises of `VideoModel`, its configuration those
of `VideoConfig`. Training, sampling, planning and measuring ask for nothing else, so another family needs no edit of
theirs (`models/README.md` says what it does need).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from osjax.models import lora
from osjax.parallel import sharding
from osjax.types import LatentBatch, NamedTree

Size = tuple[int, int, int]  # latent frames, rows and columns
Params = Mapping[str, Any] | lora.Adapted


@dataclass(frozen=True)
class VideoInputs:
    """What a video model takes besides time.

    latent_channels: C of the latents. patch: side of the square of latent pixels that is one token; latent heights and
    widths are multiples of it. text_channels, pooled_channels: of the text states and of the pooled text vector.
    condition: whether it is given frames. guidance: whether it is told the strength of guidance, as distilled models;
    guidance_img: and of that on the condition, beside it.
    """

    latent_channels: int
    patch: int
    text_channels: int
    pooled_channels: int
    condition: bool
    guidance: bool
    guidance_img: bool = False

    def tokens(self, T: int, H: int, W: int) -> int:
        """Video tokens of a latent of T frames, H rows and W columns."""
        return T * (H // self.patch) * (W // self.patch)


class VideoConfig(Protocol):
    """Frozen dataclass that configures a video model, as far as others read it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]  # so that `replace` takes it

    @property
    def inputs(self) -> VideoInputs:
        """Which latents, text and condition the model takes."""
        ...

    def check_latent(self, T: int, H: int, W: int, C: int) -> None:
        """UserError, in the words of the configuration, for a latent that does not fit."""
        ...

    def countable(self) -> "VideoConfig":
        """A configuration of this model whose matrix products a tracer sees all (`models/video_flops.py`)."""
        ...


class VideoModel(Protocol):
    """A linen module that predicts the velocity of latents. Its call touches every parameter."""

    @property
    def cfg(self) -> VideoConfig:
        """The configuration that it was made from."""
        ...

    @property
    def inputs(self) -> VideoInputs:
        """`inputs` of its configuration."""
        ...

    def check_latent(self, T: int, H: int, W: int, C: int) -> None:
        """`check_latent` of its configuration."""
        ...

    def check_attention(self) -> None:
        """UserError where its attention cannot run on the mesh in force (`sharding.under`)."""
        ...

    def pack(self, latents_BTHWC: jax.Array) -> jax.Array:
        """Latents, or a condition of C + 1 channels -> x_BNC, in which losses are taken and samplers integrate.

        Frames are outermost in N.
        """
        ...

    def unpack(self, x_BNC: jax.Array, size: Size) -> jax.Array:
        """Latents of `size` from x_BNC; the inverse of `pack`."""
        ...

    def velocity(
        self,
        x_BNC: jax.Array,
        size: Size,
        t_B: jax.Array,
        txt_BMC: jax.Array,
        vec_BC: jax.Array,
        cond_BTHWC: jax.Array | None = None,
        strength_B: jax.Array | None = None,
    ) -> jax.Array:
        """Velocity of packed latents of `size`, in their shape; for `apply`. The arguments are those of `of_packed`."""
        ...

    def apply(self, variables: NamedTree, *args: Any, method: str) -> Any:
        """Linen's `apply`."""
        ...


class Given(NamedTuple):
    """What a video model is told besides the noisy latent and its time.

    txt_BMC: text states. vec_BC: pooled text. cond_BTHWC: the condition, mask channel first (C + 1 channels); None for
    models without. strength_B: of guidance, for models that are told it, else None; (B, 2) where they are told both.
    """

    txt_BMC: jax.Array
    vec_BC: jax.Array
    cond_BTHWC: jax.Array | None = None
    strength_B: jax.Array | None = None


def of_packed(
    module: VideoModel, params: Params, x_BNC: jax.Array, size: Size, t_B: jax.Array, given: Given
) -> jax.Array:
    """Velocity of packed latents, in their shape and in the model's dtype.

    module: a video model. params: its parameters, or `Adapted` ones (models/lora.py). x_BNC: what its `pack` made of
    noisy latents. size: their (T, H, W), which N does not tell. t_B: times in [0, 1], 1 is noise. given: see `Given`.
    UserError where the model takes a condition or a strength that is missing, or does not take what is given.
    """
    return module.apply(lora.variables(params), x_BNC, size, t_B, *given, method="velocity")


def of_batch(module: VideoModel, params: Params, batch: LatentBatch, t_B: jax.Array) -> jax.Array:
    """Velocity of the latents of a batch, packed as the model packs them; see `of_packed`.

    batch: noisy latents (B, T, H, W, C) with their text and condition. t_B: their times.
    """
    packed, size = module.pack(batch.latents_BTHWC), batch.latents_BTHWC.shape[1:4]
    return of_packed(module, params, packed, size, t_B, Given(*batch[1:]))


def batch_of(
    model_cfg: VideoConfig, latent: tuple[int, int, int, int], rows: int, text_tokens: int, mesh: Mesh | None
) -> LatentBatch:
    """`LatentBatch` of shapes, all float32, that a video model of this configuration takes; allocates nothing.

    model_cfg: of a video model. latent: (T, H, W, C) of one clip. rows: clips. text_tokens: of a prompt. mesh: to split
    the rows over, or None.
    """
    where = None if mesh is None else sharding.batch_sharding(mesh)

    def f32(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, *shape), jnp.float32, sharding=where)

    inputs, (T, H, W, C) = model_cfg.inputs, latent
    cond = f32(T, H, W, C + 1) if inputs.condition else None
    text = f32(text_tokens, inputs.text_channels), f32(inputs.pooled_channels)
    strength = f32(2) if inputs.guidance_img else f32()
    return LatentBatch(f32(T, H, W, C), *text, cond, strength if inputs.guidance else None)
