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
    read = _reader()(np.ascontiguousarray(image_HWC[..., ::-1]))
    boxes = [] if read.boxes is None else zip(read.boxes, read.scores, strict=True)
    area = sum(_area(corners_N2) for corners_N2, confidence in boxes if confidence > CONFIDENT)
    return min(1.0, area / (image_HWC.shape[0] * image_HWC.shape[1]))


@lru_cache(1)
def _reader():
    one_thread = {"EngineConfig.onnxruntime.intra_op_num_threads": 1}  # the pool works on several clips
    return need("rapidocr", "ocr").RapidOCR(params={"Global.log_level": "error", **one_thread})


def _area(corners_N2: np.ndarray) -> float:
    x, y = corners_N2.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
