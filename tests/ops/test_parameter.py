"""Parameters are looked at, not traced again, and their shapes still have to be those of the module."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

from osjax.ops.parameter import logical, parameter

traced = []


def ones(key, shape, dtype=jnp.float32):
    traced.append(shape)
    return jnp.ones(shape, dtype)


class Scale(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * parameter(self, "scale", logical(ones, "embed"), (x.shape[-1],))


def test_the_initialiser_runs_once_and_carries_names():
    traced.clear()
    boxed = Scale().init(jax.random.key(0), jnp.ones(3))
    assert boxed["params"]["scale"].names == ("embed",) and traced == [(3,)]
    out = Scale().apply({"params": {"scale": jnp.arange(3.0)}}, jnp.ones(3))
    assert out.tolist() == [0, 1, 2] and traced == [(3,)]
    assert Scale().apply(boxed, jnp.ones(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "params, error", [({"scale": jnp.ones(4)}, ScopeParamShapeError), ({"other": jnp.ones(3)}, ScopeParamNotFoundError)]
)
def test_parameters_of_another_model_are_refused(params, error):
    with pytest.raises(error, match="scale"):
        Scale().apply({"params": params}, jnp.ones(3))
