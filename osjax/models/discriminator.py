"""The 3D patch discriminator: strided convolutions with batch norms, one logit for each overlapping patch of a clip.

Running statistics are leaves of the params tree, as they are tensors of the original's state dict, so that weights go
in and out whole. A call reads them and leaves them be; a training call normalises with its own batch and gives their
update in the collection `batch_stats`. Training takes the tree apart with `split` (gradients and optimisers see the
trainable part alone) and puts it together with `merge`.

Source: Open-Sora opensora/models/vae/discriminator.py.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from osjax.errors import UserError
from osjax.ops.conv import BIAS_AXES, KERNEL_AXES, Triple, conv3d
from osjax.ops.parameter import logical, parameter
from osjax.types import Axis, NamedTree

KERNEL = (3, 3, 3)
SLOPE = 0.2  # of the leaky ReLU
EPS = 1e-5
MOMENTUM = 0.1  # weight of the newest batch in the running statistics
MAX_WIDENING = 8
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Field names are the original's. input_nc: channels of a clip. ndf: channels of the first convolution.

    n_layers: convolutions with a norm, after the first and before the last. conv_cls: only "conv3d" is known.
    dropout: probability, in training, after each norm.
    """

    input_nc: int = 3
    ndf: int = 64
    n_layers: int = 5
    conv_cls: str = "conv3d"
    dropout: float = 0.3

    def __post_init__(self):
        if self.conv_cls != "conv3d":
            raise UserError(f"discriminator conv_cls {self.conv_cls!r} is unknown: use 'conv3d'")
        if self.n_layers < 1 or not 0 <= self.dropout < 1:
            raise UserError(
                f"discriminator n_layers {self.n_layers} must be at least 1 and dropout {self.dropout} in [0, 1)"
            )

    def width(self, layer: int) -> int:
        """Channels behind a layer, counted from 0 for the one without a norm."""
        return self.ndf * min(2**layer, MAX_WIDENING)

    def stride(self, layer: int) -> Triple:
        """Time is halved by the first two layers, space by all but the last."""
        if layer == self.n_layers:
            return (1, 1, 1)
        return (2, 2, 2) if layer < 2 else (1, 2, 2)


class Conv(nn.Module):
    """A convolution with kernels drawn as narrowly as the original draws them (0.02)."""

    features: int
    stride: Triple = (1, 1, 1)
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array) -> jax.Array:
        shape = (*KERNEL, x_BTHWC.shape[-1], self.features)
        kernel = parameter(self, "kernel", logical(nn.initializers.normal(0.02), *KERNEL_AXES), shape)
        bias = None
        if self.use_bias:
            zeros = logical(nn.initializers.zeros, *BIAS_AXES)
            bias = parameter(self, "bias", zeros, (self.features,)).astype(self.dtype)
        return conv3d(x_BTHWC.astype(self.dtype), kernel.astype(self.dtype), self.stride, bias=bias)


class BatchNorm(nn.Module):
    """Batch norm in float32. The batch is the whole one, over all devices, where the original takes each device's."""

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array, train: bool) -> jax.Array:
        C = x_BTHWC.shape[-1]
        scale = parameter(self, "scale", logical(_near_one, Axis.NORM), (C,))
        bias = parameter(self, "bias", logical(nn.initializers.zeros, Axis.NORM), (C,))
        mean = parameter(self, "running_mean", logical(nn.initializers.zeros, Axis.NORM), (C,))
        variance = parameter(self, "running_var", logical(nn.initializers.ones, Axis.NORM), (C,))
        batches = parameter(self, "num_batches_tracked", logical(_no_batches), ())
        x = x_BTHWC.astype(jnp.float32)
        if train:
            old_mean, old_variance = mean, variance
            mean = x.mean((0, 1, 2, 3))
            variance = jnp.square(x - _as_channels(mean)).mean((0, 1, 2, 3))
            count = x.size // C
            unbiased = variance * (count / max(1, count - 1))
            self._keep("running_mean", old_mean + MOMENTUM * (mean - old_mean))
            self._keep("running_var", old_variance + MOMENTUM * (unbiased - old_variance))
            self._keep("num_batches_tracked", jnp.asarray(batches) + 1)
        y = (x - _as_channels(mean)) * _as_channels(scale * jax.lax.rsqrt(variance + EPS)) + _as_channels(bias)
        return y.astype(x_BTHWC.dtype)

    def _keep(self, name: str, value: jax.Array) -> None:
        if self.is_mutable_collection("batch_stats"):
            self.put_variable("batch_stats", name, jax.lax.stop_gradient(value))


def _near_one(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return 1 + 0.02 * jax.random.normal(key, shape)


def _no_batches(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.zeros(shape, jnp.int32)


def _as_channels(x_C: jax.Array) -> jax.Array:
    return jnp.reshape(x_C, (1, 1, 1, 1, -1))


class Discriminator(nn.Module):
    """Clips (B, T, H, W, C) -> logits (B, T', H', W', 1), float32: high where a patch looks real. Any size is taken.

    train: normalise by this batch, not by the running statistics, and drop features (rngs `dropout`, unless
    `cfg.dropout` is 0). With `mutable=["batch_stats"]` the call also gives the statistics that follow; `merge` them.
    """

    cfg: DiscriminatorConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BTHWC: jax.Array, train: bool = False) -> jax.Array:
        cfg = self.cfg
        x = Conv(cfg.width(0), cfg.stride(0), use_bias=True, dtype=self.dtype, name="conv0")(x_BTHWC)
        x = nn.leaky_relu(x, SLOPE)
        for n in range(1, cfg.n_layers + 1):
            x = Conv(cfg.width(n), cfg.stride(n), dtype=self.dtype, name=f"conv{n}")(x)
            x = nn.leaky_relu(BatchNorm(name=f"norm{n}")(x, train), SLOPE)
            x = nn.Dropout(cfg.dropout, deterministic=not train)(x)
        return Conv(1, use_bias=True, dtype=self.dtype, name="conv_out")(x).astype(jnp.float32)


def split(params: NamedTree) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what gradients change, running statistics) of a params tree, boxed or not."""
    flat = flatten_dict(params)
    statistics = {path: leaf for path, leaf in flat.items() if path[-1] in STATISTICS}
    trainable = {path: leaf for path, leaf in flat.items() if path not in statistics}
    return unflatten_dict(trainable), unflatten_dict(statistics)


def merge(trainable: NamedTree, statistics: NamedTree) -> dict[str, Any]:
    """The params tree of a trainable part and running statistics (such as an apply's `batch_stats`)."""
    return unflatten_dict({**flatten_dict(trainable), **flatten_dict(statistics)})


def example_inputs(cfg: DiscriminatorConfig) -> tuple[jax.Array]:
    """An input for `init`: any size will do."""
    return (jnp.zeros((1, 1, 8, 8, cfg.input_nc)),)
