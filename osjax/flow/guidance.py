"""Classifier-free guidance on text and on the visual condition, as tables of weights per step.

Three predictions enter a step: with prompt and condition (full), with the negative prompt and condition (given), with
the negative prompt and no condition (free). Weights are known before sampling starts, so they are plain arrays.
Source: Open-Sora opensora/utils/sampling.py.
"""

from typing import NamedTuple

import numpy as np

from osjax.errors import UserError


class Weights(NamedTuple):
    """Guidance weights of a whole run, concrete numpy.

    text_S:   weight on (prompt - negative prompt) of each step.
    image_ST: weight on (condition - no condition) of each step and latent frame.
    """

    text_S: np.ndarray
    image_ST: np.ndarray

    def coefficients(self) -> np.ndarray:
        """This guidance as a sum: shares (S, 3, T) of the three predictions in each step's velocity.

        free + image (given - free) + text (full - given) = text full + (image - text) given + (1 - image) free.
        A prediction whose share is zero in every frame need not be made.
        """
        text_S1 = self.text_S[:, None]
        shares = (np.broadcast_to(text_S1, self.image_ST.shape), self.image_ST - text_S1, 1 - self.image_ST)
        return np.stack(shares, axis=1).astype(np.float32)


def oscillate(weight: float, num_steps: int, full_steps: int = 10) -> np.ndarray:
    """The weight on the first `full_steps` steps, then on even steps only, and 1 on odd ones: (num_steps,)."""
    step = np.arange(num_steps)
    return np.where((step < full_steps) | (step % 2 == 0), weight, 1.0).astype(np.float32)


def temporal_ramp(weight_S: np.ndarray, num_frames: int) -> np.ndarray:
    """Spread image weights over frames: (S,) -> (S, num_frames) float32.

    The weight falls linearly towards 1 over the steps and rises linearly from 1 at the first frame to that value at
    the last: frames far from the given image need the most guidance. Weights of 1 or less stay as they are.
    """
    num_steps = len(weight_S)
    last_frame_S = weight_S + (1 - weight_S) * np.arange(num_steps) / num_steps
    ramp_ST = np.linspace(np.ones(num_steps), last_frame_S, num_frames, axis=1)
    return np.where(weight_S[:, None] > 1, ramp_ST, weight_S[:, None]).astype(np.float32)


def weights(
    num_steps: int,
    num_frames: int,
    text: float,
    image: float = 1.0,
    *,
    text_oscillation: bool = False,
    image_oscillation: bool = False,
    image_ramp: bool = False,
) -> Weights:
    """Tables of guidance weights.

    num_steps: of the sampler. num_frames: latent frames. text, image: the weights. text = 1 means no text guidance;
    image = 1 means none on the condition, which also suits text to video, where dropping an empty condition changes
    nothing and the third prediction can be saved.
    text_oscillation, image_oscillation: whether a weight is `oscillate`d over the steps.
    image_ramp: use `temporal_ramp`; only for conditions on images (i2v).
    Raises UserError for a negative weight.
    """
    if text < 0 or image < 0:
        raise UserError(f"guidance weights must not be negative, got text {text} and image {image}.")
    # `full_steps=num_steps` is no oscillation at all.
    text_S = oscillate(text, num_steps, **({} if text_oscillation else {"full_steps": num_steps}))
    image_S = oscillate(image, num_steps, **({} if image_oscillation else {"full_steps": num_steps}))
    plain_ST = np.repeat(image_S[:, None], num_frames, axis=1)
    return Weights(text_S, temporal_ramp(image_S, num_frames) if image_ramp else plain_ST)


def within(tables: Weights, times: np.ndarray, above: float, below: float) -> Weights:
    """The weights in steps that begin at a time in [above, below], and 1, which is no guidance, in all others.

    tables: of as many steps as there are times. times: (S,) at which the steps begin. above, below: 0 is data, 1 is
    noise. Source: Kynkäänniemi et al. 2024.
    """
    inside_S = (times >= above) & (times <= below)
    text_S = np.where(inside_S, tables.text_S, 1).astype(np.float32)
    return Weights(text_S, np.where(inside_S[:, None], tables.image_ST, 1).astype(np.float32))
