"""Resize to cover and crop the centre: clips bilinear without antialiasing, images bicubic with, as the original."""

import numpy as np
from PIL import Image


def resize_crop_clip(video_THWC: np.ndarray, height: int, width: int, antialias: bool = False) -> np.ndarray:
    """uint8 or float (T, H, W, C) -> float32 (T, height, width, C): scaled until it covers, then centre-cropped.

    antialias: every pixel weighs in when a clip gets smaller; without, fine patterns flicker, as the original's do.
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
    one_axis = _triangle if antialias else _bilinear
    return one_axis(one_axis(video, scaled[0], 1, rows), scaled[1], 2, columns)


def resize_crop_image(image_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (height, width, 3), scaled until it covers, then centre-cropped.

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


def _triangle(video: np.ndarray, size: int, axis: int, part: slice) -> np.ndarray:
    """Resample one axis by a triangle filter as wide as the scale, which is `_bilinear` where the axis grows."""
    old = video.shape[axis]
    if size >= old:
        return _bilinear(video, size, axis, part)
    centre = ((np.arange(size) + 0.5) * old / size)[part]
    weights = np.maximum(0, 1 - np.abs(np.arange(old) + 0.5 - centre[:, None]) * size / old)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return np.moveaxis(np.tensordot(weights, video.astype(np.float32), (1, axis)), 0, axis)
