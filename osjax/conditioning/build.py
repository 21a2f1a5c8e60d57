"""The condition that enters the model: a mask channel, then the latent of what is given, zero elsewhere.

One function, `condition`, serves training, where each sample draws its mode, and sampling, where all share one.

causal, time_compression: of the autoencoder, its `Stride`.

Source: Open-Sora opensora/utils/train.py (prepare_visual_condition_*) and opensora/utils/inference.py.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from osjax.conditioning.modes import (
    MODES,
    Reference,
    every,
    index,
    references_of,
    usable_weights,
)
from osjax.errors import UserError

Encode = Callable[[jax.Array], jax.Array]


def draw_modes(
    key: jax.Array, weights: Mapping[str, float], B: int, T: int, causal: bool, time_compression: int = 4
) -> jax.Array:
    """A mode per sample, (B,) int32 indices into `modes.MODES`, among those that suit T latent frames.

    weights: name -> probability weight; they need not add up to 1, and the mapping stays as it is.
    """
    usable = usable_weights(weights, T, causal, time_compression)
    logits = np.full(len(MODES), -np.inf, np.float32)
    for name, weight in usable.items():
        logits[index(name)] = np.log(weight)
    return jax.random.categorical(key, jnp.asarray(logits), shape=(B,)).astype(jnp.int32)


def same_mode(name: str, B: int) -> jax.Array:
    """One mode for the whole batch: (B,) int32."""
    return jnp.full((B,), index(name), jnp.int32)


def mask(mode_B: jax.Array, T: int, causal: bool, time_compression: int = 4) -> jax.Array:
    """1 where a latent frame is given: (B, T) float32. A latent of a single frame is never conditioned."""
    rows = np.zeros((len(MODES), T), np.float32)
    for row, mode in zip(rows, every(), strict=True):
        for reference in mode.references if T > 1 else ():
            row[reference.latent_slice(T, causal, time_compression)] = 1
    return jnp.take(jnp.asarray(rows), mode_B, axis=0)


def _place(
    reference: Reference, latents_BTHWC: jax.Array | np.ndarray, T: int, causal: bool, time_compression: int
) -> jax.Array:
    """Lay a reference on an empty clip of T latent frames, at its place."""
    at = reference.latent_slice(T, causal, time_compression)
    length = at.stop - at.start
    if reference.latent_frames(causal, time_compression) > T or latents_BTHWC.shape[1] < length:
        raise UserError(
            f"{reference.name} needs {reference.latent_frames(causal, time_compression)} latent frames, but the clip "
            f"has {T} and the reference {latents_BTHWC.shape[1]}: use a longer one or another condition mode."
        )
    # A longer reference gives the frames at the same place of its own, as in the original.
    given = latents_BTHWC[:, reference.latent_slice(latents_BTHWC.shape[1], causal, time_compression)]
    return jnp.pad(given, ((0, 0), (at.start, T - at.stop), (0, 0), (0, 0), (0, 0)))


def condition(
    mode_B: jax.Array,
    references: Mapping[str, jax.Array | np.ndarray],
    latent_shape: tuple[int, int, int, int],
    causal: bool,
    time_compression: int = 4,
) -> jax.Array:
    """The condition (B, T, H, W, 1 + C) float32: the mask channel, then the masked latent.

    mode_B: (B,) indices into `modes.MODES`; may be traced.
    references: name of a `modes.Reference` -> its latents (B, frames, H, W, C), one entry for every reference that a
        drawn mode needs. A mode whose references are absent counts as t2v, with an empty mask.
    latent_shape: (T, H, W, C) of the clip.
    """
    T, H, W, C = latent_shape
    given = [mode for mode in every() if mode.references and all(r.name in references for r in mode.references)]
    known = np.array([mode in given for mode in every()])
    latent = jnp.zeros((mode_B.shape[0], T, H, W, C), jnp.float32)
    if T > 1:
        for mode in given:
            chosen = (mode_B == index(mode.name)).reshape(-1, 1, 1, 1, 1)
            for reference in mode.references:
                placed = _place(reference, references[reference.name], T, causal, time_compression)
                latent = jnp.where(chosen, latent + placed, latent)
    mask_BT = mask(mode_B, T, causal, time_compression) * jnp.take(jnp.asarray(known), mode_B)[:, None]
    mask_BTHW1 = jnp.broadcast_to(mask_BT[:, :, None, None, None], (*latent.shape[:-1], 1))
    return jnp.concatenate([mask_BTHW1, latent], axis=-1)


def training_references(
    encode: Encode,
    video_BTHWC: jax.Array,
    latents_BTHWC: jax.Array,
    names: Mapping[str, float] | tuple[str, ...],
    causal: bool,
) -> dict[str, jax.Array]:
    """Latents of every reference that the modes `names` need, taken from the training video itself.

    encode: video (B, T, H, W, 3) in [-1, 1] -> normalised latents. Causal autoencoders encode a reference clip on its
    own; the others copy it from the latents of the whole clip, as the original does.
    """
    latents = {}
    for reference in references_of(names):
        if reference.frames > 1 and not causal:
            latents[reference.name] = latents_BTHWC
        else:
            latents[reference.name] = encode(video_BTHWC[:, reference.pixel_slice(video_BTHWC.shape[1], causal)])
    return latents
