"""Resize to cover and crop the centre: clips bilinear without antialiasing, images bicubic with, as the original."""

import numpy as np
from PIL import Image


def resize_crop_clip(video_THWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """The clip as float32 (T, height, width, C): scaled until it covers that, then centre-cropped.

    video_THWC: uint8 or float. height, width: pixels.
    Fine patterns flicker where a clip gets smaller, as the original's do: not every pixel weighs in.
    Source: Open-Sora opensora/datasets/utils.py and video_transforms.py.
    """
    _, H, W, _ = video_THWC.shape
    if (H, W) == (height, width):
        return video_THWC.astype(np.float32)
    video = video_THWC if video_THWC.dtype == np.uint8 else video_THWC.astype(np.float32)
    scaled = _covering(H, W, height, width)
    # Odd margins round down here, unlike an image's. What is cut off is not computed.
    rows, columns = (
        slice((whole - wanted) // 2, (whole - wanted) // 2 + wanted)
        for whole, wanted in zip(scaled, (height, width), strict=True)
    )
    return _bilinear(_bilinear(video, scaled[0], 1, rows), scaled[1], 2, columns)


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


def _bilinear(video: np.ndarray, size: int, axis: int, part: slice) -> np.ndarray:
    """Resample one axis to `size` samples, of which `part`; pixel centres aligned at half pixels, edges repeated."""
    old = video.shape[axis]
    if old == size:
        return np.take(video, np.arange(size)[part], axis).astype(np.float32)
    at = np.maximum((np.arange(size, dtype=np.float32) + 0.5) * np.float32(old / size) - 0.5, 0)[part]
    low = np.minimum(at.astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    shape = [1] * video.ndim
    shape[axis] = len(at)
    weight = (at - low).astype(np.float32).reshape(shape)
    return np.take(video, low, axis) * (1 - weight) + np.take(video, high, axis) * weight
