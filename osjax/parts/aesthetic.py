"""The score `aesthetic` from config keys: frames by CLIP and the published predictor, both from local files."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from osjax import models
from osjax.errors import UserError
from osjax.models.aesthetic import AestheticConfig
from osjax.parts import model_folder
from osjax.weights import load
from osjax.weights.leaves import Leaves


@dataclass(frozen=True)
class Beauty:
    """uint8 frames (N, H, W, 3) -> N scores, 1 to 10. Picklable: weights are read in the process that scores.

    clip: folder of openai/clip-vit-large-patch14. predictor: its sac+logos+ava1-l14-linearMSE.pth.
    """

    clip: str
    predictor: str

    def __call__(self, frames_NHWC: np.ndarray) -> np.ndarray:
        side, score = _model(self.clip, self.predictor)
        squares = np.stack([square(frame, side) for frame in frames_NHWC])
        return np.asarray(score(squares.astype(np.float32) / 127.5 - 1))

    def check(self) -> None:
        """UserError for files that do not fit, before any clip is looked at; the weights themselves stay unread."""
        _opened(self.clip, self.predictor)

    def fingerprint(self) -> str:
        """What tells the weights that the scores depend on from others."""
        return model_folder.fingerprint(self.clip, self.predictor)


def of_keys(keys: Any) -> Beauty:
    """The judge of an `aesthetic` group, `AestheticKeys` of curation.py. UserError where a file is missing."""
    if not keys.clip or not keys.predictor:
        raise UserError(
            "metric aesthetic needs local weights: give --config.aesthetic.clip, a folder of "
            "openai/clip-vit-large-patch14, and --config.aesthetic.predictor, sac+logos+ava1-l14-linearMSE.pth; or "
            "leave it out of score.metrics",
            status=2,
        )
    beauty = Beauty(keys.clip, keys.predictor)
    beauty.check()
    return beauty


def square(frame_HWC: np.ndarray, side: int) -> np.ndarray:
    """The middle square of a uint8 frame whose shorter side becomes `side` pixels, as CLIP's own preprocessing."""
    height, width = frame_HWC.shape[:2]
    scale = side / min(height, width)
    size = (side, int(height * scale)) if width <= height else (int(width * scale), side)
    image = Image.fromarray(frame_HWC).resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


@cache
def _model(clip: str, predictor: str) -> tuple[int, Callable[[np.ndarray], jax.Array]]:
    """Pixels of a side, and the compiled (N, side, side, 3) -> (N,)."""
    parts = []
    for cfg, leaves in _opened(clip, predictor):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), leaves.tree())
        parts.append((models.build(cfg), params))
    (vision, vision_params), (head, head_params) = parts

    @jax.jit
    def score(weights, x_BHWC):
        return head.apply({"params": weights[1]}, vision.apply({"params": weights[0]}, x_BHWC))

    return vision.cfg.image_size, lambda x_BHWC: score((vision_params, head_params), x_BHWC)


def _opened(clip: str, predictor: str) -> list[tuple[Any, Leaves]]:
    """Configuration and leaves of both models; UserError for what is missing or does not fit."""
    cfg = model_folder.config("clip_vision", Path(clip), "float32")
    head = AestheticConfig(input_size=cfg.projection_dim)
    return [
        (cfg, load.open_leaves(cfg, model_folder.weight_file(Path(clip)))),
        (head, load.open_leaves(head, predictor)),
    ]
