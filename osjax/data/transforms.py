"""Resize to cover and crop the centre. Clips: bilinear without antialiasing, as the original does."""

import numpy as np


def resize_crop_clip(video_THWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 or float (T, H, W, C) -> float32 (T, height, width, C): scaled until it covers, then centre-cropped.

    Source: Open-Sora opensora/datasets/utils.py and video_transforms.py.
    """
    _, H, W, _ = video_THWC.shape
    video = video_THWC.astype(np.float32)
    if (H, W) == (height, width):
        return video
    # The side that is relatively shorter is matched exactly; the other keeps the aspect ratio and is cropped.
    if H / W > height / width:
        scaled = (round(H * width / W), width)
    else:
        scaled = (height, round(W * height / H))
    video = _bilinear(_bilinear(video, scaled[0], 1), scaled[1], 2)
    top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
    return video[:, top : top + height, left : left + width]


def _bilinear(video: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Resample one axis to `size` samples, pixel centres aligned at half pixels, edges repeated."""
    old = video.shape[axis]
    if old == size:
        return video
    at = np.maximum((np.arange(size, dtype=np.float32) + 0.5) * np.float32(old / size) - 0.5, 0)
    low = np.minimum(at.astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    shape = [1] * video.ndim
    shape[axis] = size
    weight = (at - low).astype(np.float32).reshape(shape)
    return np.take(video, low, axis) * (1 - weight) + np.take(video, high, axis) * weight
