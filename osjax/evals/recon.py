"""How well a video is reproduced: PSNR over uint8 pixels."""

import numpy as np

from osjax.errors import UserError


def psnr(got_uint8: np.ndarray, want_uint8: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each clip: (B, ...) uint8 arrays of one shape -> (B,) float64.

    Equal clips give 100 dB rather than infinity, so that a mean over clips stays finite.
    """
    if got_uint8.shape != want_uint8.shape or got_uint8.dtype != np.uint8 or want_uint8.dtype != np.uint8:
        raise UserError(
            f"psnr compares uint8 arrays of one shape, got {got_uint8.dtype} {got_uint8.shape} "
            f"and {want_uint8.dtype} {want_uint8.shape}"
        )
    difference = got_uint8.astype(np.float64) - want_uint8.astype(np.float64)
    mse = np.square(difference).reshape(len(got_uint8), -1).mean(1)
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(mse, 1e-12)), 100.0)
