"""Blur of a clip, by the variance of the Laplacian of its frames."""

from collections.abc import Sequence

import cv2
import numpy as np


def blur(images: Sequence[np.ndarray]) -> float:
    """Sharpness: the median over images of the variance of the Laplacian of their grey; low is blurred.

    images: uint8 (H, W, 3) each.
    The median of five is below a threshold just when three of five frames are: the report's majority vote.
    """
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    return float(np.median([cv2.Laplacian(image_HW, cv2.CV_64F).var() for image_HW in grey]))
