"""One video to make: what is asked for, and the noise that it starts from."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from osjax.errors import UserError
from osjax.sampling.references import Given


@dataclass(frozen=True)
class Job:
    """One video to make.

    prompt, negative: texts. seed: what the noise follows from, 0 to 2**63 - 1. reference: what `references.load` takes;
    None for modes that are given nothing. noise_THWC: to start from instead of the noise that the seed stands for.
    """

    prompt: str
    seed: int
    negative: str = ""
    reference: Given | None = None
    noise_THWC: np.ndarray | jax.Array | None = None

    def noise(self, shape: tuple[int, int, int, int]) -> jax.Array:
        """Normal draws of the latent's shape (T, H, W, C), float32; they depend on the seed and on nothing else.

        UserError where the job's own noise has another shape.
        """
        if self.noise_THWC is None:
            return jax.random.normal(jax.random.key(self.seed), shape)
        if self.noise_THWC.shape != shape:
            raise UserError(
                f"noise has shape {self.noise_THWC.shape}, the latents have {shape}: give noise of that shape"
            )
        return jnp.asarray(self.noise_THWC, jnp.float32)
