"""Resize to cover and crop the centre: clips bilinear without antialiasing, images bicubic with, as the original."""

import cv2
import numpy as np
from PIL import Image

cv2.setNumThreads(1)  # loaders read many clips at once; threads of its own would only take turns with theirs


def resize_crop_clip(video_THWC: np.ndarray, height: int, width: int, exact: bool = True) -> np.ndarray:
    """The clip as (T, height, width, C): scaled until it covers that, then centre-cropped.

    video_THWC: uint8 or float. height, width: pixels. exact: the result is float32, the original's but for rounding
    (1e-6); otherwise uint8 from uint8, rounded to whole levels, in the same bits on every processor.
    Fine patterns flicker where a clip gets smaller, as the original's do: not every pixel weighs in.
    Source: Open-Sora opensora/datasets/utils.py and video_transforms.py.
    """
    T, H, W, C = video_THWC.shape
    dtype, method = (np.float32, cv2.INTER_LINEAR) if exact else (np.uint8, cv2.INTER_LINEAR_EXACT)
    if (H, W) == (height, width):
        return video_THWC.astype(dtype, copy=False)
    scaled = _covering(H, W, height, width)
    # Odd margins round down here, unlike an image's.
    top, left = (scaled[0] - height) // 2, (scaled[1] - width) // 2
    out = np.empty((T, height, width, C), dtype)
    for frame, image in zip(out, video_THWC, strict=True):
        whole = cv2.resize(image.astype(dtype, copy=False), scaled[::-1], interpolation=method)
        frame[:] = whole[top : top + height, left : left + width]
    return out


def unit(video: np.ndarray) -> np.ndarray:
    """Levels of 0 to 255 as float32 in [-1, 1]. video: of any shape."""
    return video.astype(np.float32) / np.float32(127.5) - np.float32(1)


def resize_crop_image(image_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image as uint8 (height, width, 3): scaled until it covers that, then centre-cropped.

    image_HWC: uint8. height, width: pixels.
    Source: Open-Sora opensora/datasets/utils.py.
    """
    scaled = _covering(*image_HWC.shape[:2], height, width)
    image = Image.fromarray(image_HWC).resize(scaled[::-1], Image.Resampling.BICUBIC)
    top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
    return np.asarray(image)[top : top + height, left : left + width]


def _covering(H: int, W: int, height: int, width: int) -> tuple[int, int]:
    """The size that covers (height, width): the relatively shorter side exactly, the other by the aspect ratio."""
    if height / H > width / W:
        return height, round(W * (height / H))
    return round(H * (width / W)), width
