"""Reconstruction losses of autoencoders, float32 means over every pixel value."""

import jax
import jax.numpy as jnp


def l1(got: jax.Array, want: jax.Array) -> jax.Array:
    return jnp.abs(got.astype(jnp.float32) - want.astype(jnp.float32)).mean()


def mse(got: jax.Array, want: jax.Array) -> jax.Array:
    return jnp.square(got.astype(jnp.float32) - want.astype(jnp.float32)).mean()
