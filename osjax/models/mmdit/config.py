"""Sizes and choices of the multimodal diffusion transformer."""

from dataclasses import dataclass, replace

from osjax.errors import UserError
from osjax.models.mmdit.patch import token_grid
from osjax.models.velocity import VideoInputs
from osjax.ops.attention import IMPLEMENTATIONS, KERNELS
from osjax.ops.stack import check_remat

TEXT_TOKENS = ("sharded", "replicated")
GRAD_REDUCE = DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class MMDiTConfig:
    """Field names are the original's (opensora/models/mmdit/model.py). Defaults: the 11B Open-Sora v2 video model.

    in_channels counts the channels of one token: latent channels * patch_size ** 2.
    Whether weights hold qkv fused or split is a layout of the file (`weights.Layout`), not of the model.
    """

    in_channels: int = 64
    vec_in_dim: int = 768
    context_in_dim: int = 4096
    hidden_size: int = 3072
    mlp_ratio: float = 4.0
    num_heads: int = 24
    depth: int = 19  # double-stream blocks
    depth_single_blocks: int = 38
    axes_dim: tuple[int, ...] = (16, 56, 56)  # head dimensions that rotate with frame, row, column
    theta: float = 10_000.0
    qkv_bias: bool = True  # of double-stream blocks; single-stream blocks always have one
    guidance_embed: bool = False
    guidance_img_embed: bool = False  # beside it: the model is told the guidance on the condition, too
    cond_embed: bool = True
    patch_size: int = 2
    dtype: str = "float32"  # compute dtype; parameters are float32
    time_dtype: str = "float32"  # of times and their sinusoids; "bfloat16" as the released weights take them
    attention: str = "dense"  # see ops/attention.py
    attention_kernel: str = "flash"  # inside ring, ulysses and ulysses_ring: flash, blockwise or dense
    text_tokens: str = "sharded"  # over `sequence`, like video; "replicated": whole on each device (docs in tokens.py)
    remat: str = "none"  # none, full, save_attention, offload or offload_save_attention: see ops/stack.py
    remat_blocks: tuple[int, int] | None = None  # only the first so many double and single blocks, such as (8, 100)
    grad_reduce: str = "float32"  # in what gradients of kernels are summed over tokens and devices; or "bfloat16"

    def __post_init__(self):
        object.__setattr__(self, "axes_dim", tuple(self.axes_dim))
        for name in ("in_channels", "vec_in_dim", "context_in_dim", "hidden_size", "num_heads", "patch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: give 1 or more")
        if min(self.depth, self.depth_single_blocks) < 0 or not (self.mlp_ratio > 0 and self.theta > 0):
            raise UserError(
                f"depth {self.depth} and depth_single_blocks {self.depth_single_blocks} must be 0 or more, "
                f"mlp_ratio {self.mlp_ratio} and theta {self.theta} above 0"
            )
        check_remat(self.remat)
        for name, known in (
            ("attention", IMPLEMENTATIONS),
            ("attention_kernel", KERNELS),
            ("text_tokens", TEXT_TOKENS),
            ("grad_reduce", GRAD_REDUCE),
            ("dtype", DTYPES),
            ("time_dtype", DTYPES),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"unknown {name} {getattr(self, name)!r}: use one of {', '.join(known)}")
        if self.remat_blocks is not None:
            object.__setattr__(self, "remat_blocks", tuple(self.remat_blocks))
            if len(self.remat_blocks) != 2 or min(self.remat_blocks) < 0:
                raise UserError(f"remat_blocks {self.remat_blocks} must be two counts: of double and of single blocks")
        if self.guidance_img_embed and not (self.guidance_embed and self.cond_embed):
            raise UserError("guidance_img_embed goes with guidance_embed and cond_embed: set both, or leave it out")
        if self.hidden_size % self.num_heads:
            raise UserError(f"hidden_size {self.hidden_size} does not divide into num_heads {self.num_heads}")
        if sum(self.axes_dim) != self.head_dim or any(dim % 2 for dim in self.axes_dim):
            raise UserError(
                f"axes_dim {self.axes_dim} must be even and sum to the head dimension {self.head_dim} "
                f"(hidden_size {self.hidden_size} / num_heads {self.num_heads})"
            )
        if self.in_channels % self.patch_size**2:
            raise UserError(f"in_channels {self.in_channels} is no multiple of patch_size ** 2 = {self.patch_size**2}")

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def mlp_dim(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def cond_channels(self) -> int:
        """Channels of one condition token: the packed latent and one mask value per packed pixel."""
        return self.in_channels + self.patch_size**2

    @property
    def inputs(self) -> VideoInputs:
        """What the model takes, as the contract of video models wants it (`models/velocity.py`)."""
        return VideoInputs(
            self.in_channels // self.patch_size**2,
            self.patch_size,
            self.context_in_dim,
            self.vec_in_dim,
            self.cond_embed,
            self.guidance_embed,
            self.guidance_img_embed,
        )

    def check_latent(self, T: int, H: int, W: int, C: int) -> None:
        """UserError for a latent of T frames, H rows, W columns and C channels that the model does not take."""
        channels = C * self.patch_size**2
        if self.in_channels != channels:
            raise UserError(
                f"in_channels {self.in_channels} does not fit the autoencoder's {C} latent channels * "
                f"patch_size ** 2: set it to {channels}"
            )
        token_grid(T, H, W, self.patch_size)

    def countable(self) -> "MMDiTConfig":
        """This model for a tracer that counts matrix products: flash kernels show none, dense attention all.

        No mesh or policy of rematerialisation changes what one forward pass multiplies.
        """
        return replace(self, attention="dense", remat="none", remat_blocks=None)
