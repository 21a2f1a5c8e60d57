"""Everything that a training run carries from step to step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from osjax.training.freeze import Freeze, fill


class TrainState(struct.PyTreeNode):
    """step: updates tried so far, int32. skipped: updates left out for a non-finite loss or gradient.

    ema: float32 moving average of the parameters that train, or None.
    """

    step: jax.Array
    skipped: jax.Array
    params: Any
    opt_state: Any
    ema: Any = None

    def best(self) -> Any:
        """The parameters to evaluate and to sample with: their moving average where there is one."""
        return self.params if self.ema is None else fill(self.ema, self.params)


EVERYTHING = Freeze()


def create(
    init_params: Callable[[], Any], tx: optax.GradientTransformation, with_ema: bool, freeze: Freeze = EVERYTHING
) -> TrainState:
    """Fresh state. Trace it (`parallel.sharding.init_sharded`): boxes of logical names pass through to the moments."""
    params = init_params()
    trained = freeze.trained(params)
    # A copy, because donated buffers must not be shared between params and ema.
    ema = jax.tree.map(lambda p: p.astype(jnp.float32) + 0, trained) if with_ema else None
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, params, tx.init(trained), ema)
