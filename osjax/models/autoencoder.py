"""What every autoencoder promises, and the one place where latents are scaled and sizes are checked.

An autoencoder is a linen module with
    encode(x_BTHWC)       pixels in [-1, 1] -> normalised latents (about unit variance, what diffusion sees)
    decode(z_BTHWC)       normalised latents -> pixels
    latent_shape(T, H, W) latent frames, rows and columns of a video
    __call__(x_BTHWC)     decode(encode(x)), which touches every parameter
    stride                a `Stride`
    tiling                a `Tiling`, the tile sizes that its config asks for (`models/tiling.py` reads it)
    latent_scale          a `LatentScale`, with which `encode` normalises
    last_layer            path of the kernel of the decoder's last layer in the params tree, by which the adversarial
                          phase weighs its losses
and with a configuration `cfg` that has `stride`, `tiling` and `latent_scale` too, and
    latent_channels       C of the latents
    scale_fields(scale)   {name: value} of the fields with which `latent_scale` would be `scale`, as far as they can
"""

from dataclasses import dataclass

import jax
import numpy as np

from osjax.errors import UserError


@dataclass(frozen=True)
class LatentScale:
    """latent = scale * (z - shift), with z as the bare encoder gives it; numbers, or numpy arrays (C,)."""

    scale: float | np.ndarray = 1.0
    shift: float | np.ndarray = 0.0

    def normalise(self, z: jax.Array) -> jax.Array:
        """Latents as the bare encoder gives them (..., C) -> normalised ones."""
        return (z - self._along_channels(self.shift, z)) * self._along_channels(self.scale, z)

    def restore(self, latent: jax.Array) -> jax.Array:
        """Normalised latents (..., C) -> what the bare decoder takes; the inverse of `normalise`."""
        return latent / self._along_channels(self.scale, latent) + self._along_channels(self.shift, latent)

    def corrected(self, mean: float, std: float) -> "LatentScale":
        """The scale of an encoder whose latents, normalised with this one, have this mean and deviation.

        With it they have zero mean and unit variance. Scale and shift become one number each, for all channels.
        """
        scale, shift = float(np.mean(self.scale)), float(np.mean(self.shift))
        return LatentScale(scale / max(std, 1e-12), shift + mean / scale)

    @staticmethod
    def _along_channels(value: float | np.ndarray, like: jax.Array) -> float | np.ndarray:
        return value.reshape((1,) * (like.ndim - 1) + (-1,)) if isinstance(value, np.ndarray) else value


@dataclass(frozen=True)
class Tiling:
    """Which dimensions are cut into overlapping tiles. Sizes are pixels and frames; overlap is a fraction of a tile."""

    use_spatial_tiling: bool = False
    use_temporal_tiling: bool = False
    spatial_tile_size: int = 256
    temporal_tile_size: int = 32
    tile_overlap_factor: float = 0.25


@dataclass(frozen=True)
class Stride:
    """Pixels per latent pixel. causal: the first frame stands alone, so videos have 1 + k * time frames."""

    time: int
    space: int
    causal: bool = False

    def latent_shape(self, T: int, H: int, W: int) -> tuple[int, int, int]:
        """Latent (T, H, W) of a video. Raises UserError with the nearest valid size where the stride does not divide.

        A video that is not causal may also be one frame, an image, which stays one frame.
        """
        self._check_frames(T)
        for name, size in (("height", H), ("width", W)):
            if size < 1 or size % self.space:
                nearest = max(1, round(size / self.space)) * self.space
                raise UserError(
                    f"{name} {size} is not a multiple of the autoencoder's spatial stride {self.space}: "
                    f"the nearest valid {name} is {nearest}."
                )
        frames = (T - 1) // self.time + 1
        return frames, H // self.space, W // self.space

    def pixel_shape(self, T: int, H: int, W: int) -> tuple[int, int, int]:
        """Video (T, H, W) that a latent decodes to. One latent frame decodes to one frame."""
        frames = (T - 1) * self.time + 1 if self.causal or T == 1 else T * self.time
        return frames, H * self.space, W * self.space

    def _check_frames(self, T: int) -> None:
        odd = 1 if self.causal else 0
        if T == 1 or (T > 0 and (T - odd) % self.time == 0):
            return
        nearest = max(1, round((T - odd) / self.time) * self.time + odd)
        rule = f"one more than a multiple of {self.time}" if self.causal else f"1 or a multiple of {self.time}"
        raise UserError(
            f"{T} frames do not fit the autoencoder's temporal stride {self.time}, which needs {rule}: "
            f"the nearest valid number is {nearest}."
        )
