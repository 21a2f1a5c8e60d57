"""FLOPs of traced programs, counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from osjax.ops import flops


def f32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_products_and_convolutions_are_counted_and_scans_times_their_length():
    def repeated(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=7)[0]

    assert flops.of_program(repeated, f32(4, 16), f32(16, 16)) == 7 * 2 * 4 * 16 * 16

    def convolved(x, k):
        return jax.lax.conv_general_dilated(x, k, (2, 2), "SAME", (1, 1), (1, 1), ("NHWC", "HWIO", "NHWC"), 2)

    assert flops.of_program(convolved, f32(3, 8, 8, 6), f32(5, 5, 3, 4)) == 2 * 3 * 4 * 4 * 4 * 25 * 3

    def chosen(i, x):
        return jax.lax.cond(i > 0, lambda x: x @ x, lambda x: x @ x @ x, x)

    assert flops.of_program(jax.jit(chosen), f32(), f32(8, 8)) == 2 * 2 * 8**3
    with pytest.raises(ValueError, match="while loop"):
        flops.of_program(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x), f32(4, 4))


def test_the_gradient_of_a_product_counts_three_times():
    def loss(w, x):
        return jnp.sum((x @ w) ** 2)

    forward = flops.of_program(loss, f32(16, 32), f32(4, 16))
    assert flops.of_program(jax.grad(loss, (0, 1)), f32(16, 32), f32(4, 16)) == 3 * forward
