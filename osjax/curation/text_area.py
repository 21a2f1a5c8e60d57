"""Area of the text that is read in a clip."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from osjax.curation.isolate import need

CONFIDENT = 0.7  # of the OCR


def text_area(images: Sequence[np.ndarray]) -> float:
    """Area of text in the middle one of some images, uint8 (H, W, 3), as a fraction of the frame's.

    Text counts that is read with confidence above CONFIDENT.
    """
    image_HWC = images[len(images) // 2]
    boxes, _ = _reader()(image_HWC[..., ::-1])
    area = sum(_area(np.asarray(corners)) for corners, _, confidence in boxes or () if float(confidence) > CONFIDENT)
    return min(1.0, area / (image_HWC.shape[0] * image_HWC.shape[1]))


@lru_cache(1)
def _reader():
    return need("rapidocr_onnxruntime", "ocr").RapidOCR(intra_op_num_threads=1)


def _area(corners_N2: np.ndarray) -> float:
    x, y = corners_N2.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
