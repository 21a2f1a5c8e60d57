"""How well videos are reproduced: PSNR, SSIM, LPIPS and flicker, on the uint8 pixels that a viewer gets."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.errors import UserError
from osjax.types import NamedTree

SSIM_WINDOW = 11  # pixels of the Gaussian window of Wang et al. 2004, cut off at 3.5 standard deviations of 1.5


def psnr(got_uint8: np.ndarray, want_uint8: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each clip, (B,) float64.

    got_uint8, want_uint8: (B, ...) arrays of one shape. UserError for others.
    Equal clips give 100 dB rather than infinity, so that a mean over clips stays finite.
    """
    _check("psnr", got_uint8, want_uint8)
    mse = np.square(_difference(got_uint8, want_uint8)).reshape(len(got_uint8), -1).mean(1)
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(mse, 1e-12)), 100.0)


def ssim_function(height: int, width: int) -> Callable[..., float]:
    """scikit-image's function, for frames of `height` by `width` pixels. UserError as `ssim` raises it."""
    if min(height, width) < SSIM_WINDOW:
        raise UserError(f"SSIM of {height}x{width} pixels: it needs {SSIM_WINDOW} or more")
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise UserError("SSIM needs scikit-image: pip install 'osjax[evals]'") from error
    return structural_similarity


def ssim(got_BTHWC: np.ndarray, want_BTHWC: np.ndarray) -> np.ndarray:
    """Structural similarity of each clip, the mean over its frames: (B,) float64, 1 for equal clips.

    got_BTHWC, want_BTHWC: uint8, of one shape. As Wang et al. 2004 define it: Gaussian window, population covariance.
    UserError for other arrays, frames smaller than the window, or without scikit-image, from osjax[evals].
    """
    _check("ssim", got_BTHWC, want_BTHWC)
    of_frames = partial(
        ssim_function(*got_BTHWC.shape[2:4]),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=-1,
    )
    clips = zip(got_BTHWC, want_BTHWC, strict=True)
    return np.array([np.mean([of_frames(a, b) for a, b in zip(got, want, strict=True)]) for got, want in clips])


def flicker(got_BTHWC: np.ndarray, want_BTHWC: np.ndarray) -> np.ndarray:
    """Change from frame to frame that the original does not have, in grey levels: (B,) float64.

    got_BTHWC, want_BTHWC: uint8, of one shape; UserError for others.
    The mean absolute difference of the two videos' steps in time. A constant offset costs nothing, an error that comes
    and goes costs twice. Clips of one frame have none.
    """
    _check("flicker", got_BTHWC, want_BTHWC)
    if got_BTHWC.shape[1] == 1:
        return np.zeros(len(got_BTHWC))
    return np.abs(np.diff(_difference(got_BTHWC, want_BTHWC), axis=1)).mean((1, 2, 3, 4))


def error_map(got_THWC: np.ndarray, want_THWC: np.ndarray) -> np.ndarray:
    """Absolute error of every pixel in grey levels, the mean over colours: (T, H, W) float64.

    got_THWC, want_THWC: uint8, of one shape; UserError for others.
    """
    _check("error_map", got_THWC, want_THWC)
    return np.abs(_difference(got_THWC, want_THWC)).mean(-1)


def lpips(module: nn.Module, params: NamedTree) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The function (got_BTHWC, want_BTHWC) -> (B,): perceptual distance of each uint8 clip, the mean over its frames.

    module: `models.lpips.LPIPS`. params: its parameters. One frame at a time, so that memory does not grow with the
    clip.
    """

    @jax.jit
    def distance(params, got_1HWC, want_1HWC):
        pixels = [x[None].astype(jnp.float32) / 127.5 - 1 for x in (got_1HWC, want_1HWC)]
        return module.apply({"params": params}, *pixels)[0, 0]

    params = jax.tree.map(jnp.asarray, params)  # as constants of the program they would take long to compile

    def of_clips(got_BTHWC: np.ndarray, want_BTHWC: np.ndarray) -> np.ndarray:
        _check("lpips", got_BTHWC, want_BTHWC)
        frames = range(got_BTHWC.shape[1])
        clips = zip(got_BTHWC, want_BTHWC, strict=True)
        return np.array([np.mean([distance(params, a[t : t + 1], b[t : t + 1]) for t in frames]) for a, b in clips])

    return of_clips


def _difference(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    return got.astype(np.float64) - want.astype(np.float64)


def _check(measure: str, got: np.ndarray, want: np.ndarray) -> None:
    if got.shape != want.shape or got.dtype != np.uint8 or want.dtype != np.uint8:
        raise UserError(
            f"{measure} compares uint8 arrays of one shape, got {got.dtype} {got.shape} and {want.dtype} {want.shape}"
        )
