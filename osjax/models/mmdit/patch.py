"""Latent video <-> tokens, and the position ids of tokens.

A token covers `patch` x `patch` latent pixels of one frame. Tokens run over (frame, row, column); the values inside a
token run over (channel, row, column), so the first patch**2 channels of a packed condition are its mask.
Source: Open-Sora opensora/utils/sampling.py.
"""

import jax
import jax.numpy as jnp

from osjax.errors import UserError


def token_grid(T: int, H: int, W: int, patch: int) -> tuple[int, int, int]:
    """Frames, rows and columns of tokens of a latent of T x H x W. Raises UserError where `patch` does not divide."""
    if H % patch or W % patch:
        raise UserError(
            f"a latent of {H}x{W} cannot be cut into {patch}x{patch} patches: "
            f"choose a height and width that are multiples of {patch}."
        )
    return T, H // patch, W // patch


def pack(latents_BTHWC: jax.Array, patch: int) -> jax.Array:
    """Latents (B, T, H, W, C) -> tokens (B, T * H/patch * W/patch, C * patch**2). Raises UserError on a bad size."""
    B, T, H, W, C = latents_BTHWC.shape
    _, rows, columns = token_grid(T, H, W, patch)
    split = latents_BTHWC.reshape(B, T, rows, patch, columns, patch, C)
    tokens = split.transpose(0, 1, 2, 4, 6, 3, 5)  # frame, row, column, then channel, row and column inside the patch
    return tokens.reshape(B, T * rows * columns, C * patch * patch)


def unpack(tokens_BNC: jax.Array, patch: int, T: int, H: int, W: int) -> jax.Array:
    """Tokens -> latents (B, T, H, W, C), the inverse of `pack`. T, H, W: in latent pixels; patch: side."""
    _, rows, columns = token_grid(T, H, W, patch)
    B, N, width = tokens_BNC.shape
    if N != T * rows * columns or width % (patch * patch):
        raise ValueError(f"tokens {tokens_BNC.shape} do not hold a latent of {T}x{H}x{W} in patches of {patch}")
    split = tokens_BNC.reshape(B, T, rows, columns, width // patch**2, patch, patch)
    return split.transpose(0, 1, 2, 5, 3, 6, 4).reshape(B, T, H, W, width // patch**2)


def img_ids(B: int, T: int, H: int, W: int, patch: int) -> jax.Array:
    """(frame, row, column) of every video token: (B, N, 3) float32. T, H, W: in latent pixels; patch: side."""
    frames, rows, columns = token_grid(T, H, W, patch)
    axes = [jnp.arange(n, dtype=jnp.float32) for n in (frames, rows, columns)]
    ids_N3 = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1).reshape(frames * rows * columns, 3)
    return jnp.broadcast_to(ids_N3[None], (B, *ids_N3.shape))


def txt_ids(B: int, M: int) -> jax.Array:
    """Position ids of text tokens: zeros, (B, M, 3) float32. The text encoder already knows the word order."""
    return jnp.zeros((B, M, 3), jnp.float32)
