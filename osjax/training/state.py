"""Everything that a training run carries from step to step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from osjax.training.freeze import Freeze, fill
from osjax.types import Tree


class TrainState(struct.PyTreeNode):
    """Everything that a training run carries from step to step; a checkpoint holds it.

    step: updates tried so far, int32. skipped: how many of them were left out for a non-finite loss or gradient, int32.
    params: all parameters, those that are frozen too. opt_state: the update rule's, of those that train. ema: float32
    moving average of the parameters that train, or None. frozen: where `params` are adapters, the model that they are
    of (without them); where they learn from a teacher, that (`distil.Taught`). It is in no checkpoint.
    """

    step: jax.Array
    skipped: jax.Array
    params: Tree
    opt_state: Tree
    ema: Tree = None
    frozen: Any = None

    def model(self, params: Tree) -> Any:
        """What the model runs with where `params` are the parameters of this state, or new ones in their place."""
        return params if self.frozen is None else self.frozen.given(params)

    def best(self) -> Any:
        """What to evaluate and to sample with: the moving average where there is one."""
        made = self.model(self.params if self.ema is None else fill(self.ema, self.params))
        return made if self.frozen is None else made.best()


Step = Callable[[TrainState, Tree, jax.Array], tuple[TrainState, dict[str, jax.Array]]]  # of (state, batch, run key)
EVERYTHING = Freeze()


def create(
    init_params: Callable[[], Tree], tx: optax.GradientTransformation, with_ema: bool, freeze: Freeze = EVERYTHING
) -> TrainState:
    """A fresh state. Trace it (`parallel.sharding.Init`): boxes of logical names pass through to the moments.

    init_params: makes the parameters. tx: the update rule whose moments begin here. with_ema: whether an average is
    kept. freeze: the parameters that stay; they get neither.
    """
    params = init_params()
    trained = freeze.trained(params)
    # A copy, because donated buffers must not be shared between params and ema.
    ema = jax.tree.map(lambda p: p.astype(jnp.float32) + 0, trained) if with_ema else None
    zero = jnp.zeros((), jnp.int32)
    return TrainState(zero, zero, params, tx.init(trained), ema)
