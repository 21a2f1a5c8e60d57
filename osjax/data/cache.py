"""Cached features of clips: autoencoder latents of the clip and of its end frames, and the caption."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from osjax.data import dataset


def write_features(
    folder: Path, latent_shape: tuple[int, int, int, int], examples: Callable[[], Iterable[dict[str, Any]]]
) -> Path:
    """Data set of examples {latents (T, H, W, C), head, tail (1, H, W, C), text}, float32.

    head, tail: latents of the first and last frame, each encoded alone as an image, for conditions.
    """
    image = (1, *latent_shape[1:])
    features = {
        "latents": tfds.features.Tensor(shape=latent_shape, dtype=np.float32),
        "head": tfds.features.Tensor(shape=image, dtype=np.float32),
        "tail": tfds.features.Tensor(shape=image, dtype=np.float32),
        "text": tfds.features.Text(),
    }
    return dataset.write(folder, features, examples)
