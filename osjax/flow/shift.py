"""The timestep shift: longer and larger clips spend more of the path at high noise.

shift(t) = alpha t / (1 + (alpha - 1) t) keeps t = 0 (data) and t = 1 (noise) in place. Alpha grows linearly with the
tokens of one frame and with the square root of the latent frames.
Source: Open-Sora opensora/utils/sampling.py; Esser et al. 2024, section 5.3.2.
"""

import math
from typing import TypeVar

import jax
import numpy as np

from osjax.errors import UserError

Times = TypeVar("Times", float, np.ndarray, jax.Array)

TOKENS_LOW, TOKENS_HIGH = 256, 4096  # tokens per frame at which alpha is `low` and `high`


def alpha_for(tokens_per_frame: float, num_frames: int, low: float = 1.0, high: float = 3.0) -> float:
    """Shift strength of a clip of `num_frames` latent frames with `tokens_per_frame` video tokens each.

    low, high: alpha of one frame of 256 and of 4096 tokens.
    """
    slope = (high - low) / (TOKENS_HIGH - TOKENS_LOW)
    return float(low + slope * (tokens_per_frame - TOKENS_LOW)) * math.sqrt(num_frames)


def training_alpha(T: int, H: int, W: int) -> float:
    """Shift strength of a training latent of T x H x W.

    It counts H * W // 4 tokens per frame even where the patch is 1, although sampling then counts H * W; models were
    trained so (Open-Sora scripts/diffusion/train.py).
    """
    return alpha_for(H * W // 4, T)


def time_shift(t: Times, alpha: float) -> Times:
    """Shifted timesteps, elementwise; a number, numpy or jax."""
    return alpha * t / (1 + (alpha - 1) * t)


def schedule(
    num_steps: int,
    tokens_per_frame: int,
    num_frames: int,
    shift: bool = True,
    alpha: float | None = None,
    *,
    low: float = 1.0,
    high: float = 3.0,
) -> np.ndarray:
    """Times that sampling visits: (num_steps + 1,) float32, from 1 (noise) down to 0 (data).

    tokens_per_frame, num_frames, low, high: of the estimate of alpha, as in `alpha_for`.
    alpha: replaces the estimate altogether; without `shift` the times are evenly spaced and alpha is not read.
    Raises UserError for fewer than one step.
    """
    if num_steps < 1:
        raise UserError(f"num_steps is {num_steps}: sampling needs at least 1 step.")
    times = np.linspace(1, 0, num_steps + 1, dtype=np.float32)
    if not shift:
        return times
    return time_shift(times, alpha_for(tokens_per_frame, num_frames, low, high) if alpha is None else float(alpha))
