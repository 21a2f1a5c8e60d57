"""Products on a CPU are summed in float32 and rounded once, and ask for what its bfloat16 instructions give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.ops.product import product

ROWS = (((2,), (0,)), ((), ()))


@pytest.mark.parametrize("dtype, error", [("float32", 1e-5), ("bfloat16", 2**-8)])
def test_a_product_has_the_operands_type_and_one_rounding(dtype, error):
    a, b = (jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate([(2, 3, 512), (512, 5)]))
    got = product(a, b, ROWS)
    want = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    assert got.dtype == dtype
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=error, atol=error * np.abs(want).max() / 100)


def test_only_bfloat16_is_asked_for_in_float32():
    def asked(dtype):
        a, b = jnp.ones((1, 2, 4), dtype), jnp.ones((4, 3), dtype)
        (dot,) = [e for e in jax.make_jaxpr(lambda a, b: product(a, b, ROWS))(a, b).eqns if "dot" in e.primitive.name]
        return dot.params["preferred_element_type"]

    assert asked("bfloat16") == jnp.float32
    assert asked("float32") in (None, jnp.float32)
