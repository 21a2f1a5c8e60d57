"""What a latent will look like, by a linear map from its channels to colours: no decoder runs for a preview.

The map is fitted by least squares on what the decoder made on this server, from the first video on, and gets better
with each; sums are kept, not videos.
"""

import io

import numpy as np
from PIL import Image

RIDGE = 1e-3  # of the mean of the diagonal: a video of one colour fits a map, too


class Preview:
    """A map from latents (T, H, W, C) of some autoencoder to small pictures. channels: C."""

    def __init__(self, channels: int):
        self._AA = np.zeros((channels + 1, channels + 1))
        self._AB = np.zeros((channels + 1, 3))
        self._map: np.ndarray | None = None

    def learn(self, latents_THWC: np.ndarray, video_THWC: np.ndarray) -> None:
        """Take a video (uint8) and its latents into account: each cell of a latent, and the mean of its pixels."""
        t, h, w, C = latents_THWC.shape
        T, H, W, _ = video_THWC.shape
        if H % h or W % w:
            return
        at = np.minimum(np.round((np.arange(t) + 0.5) * T / t).astype(int), T - 1)
        pixels = video_THWC[at].reshape(t, h, H // h, w, W // w, 3).mean((2, 4)).reshape(-1, 3)
        rows = _rows(latents_THWC)
        self._AA += rows.T @ rows
        self._AB += rows.T @ pixels
        ridge = RIDGE * np.trace(self._AA) / len(self._AA) * np.eye(C + 1)
        ridge[-1, -1] = 0.0  # the offset is free
        self._map = np.linalg.solve(self._AA + ridge, self._AB)

    def frame(self, latents_THWC: np.ndarray, at: float = 0.5) -> np.ndarray | None:
        """The picture (H, W, 3), uint8, of a frame of some latents; None before anything was learnt.

        at: which, as a share of them.
        """
        if self._map is None:
            return None
        T, H, W, _ = latents_THWC.shape
        one = latents_THWC[min(T - 1, int(at * T))]
        return np.clip(np.round(_rows(one) @ self._map), 0, 255).astype(np.uint8).reshape(H, W, 3)

    def png(self, latents_THWC: np.ndarray) -> bytes | None:
        """The bytes of `frame` as a PNG."""
        frame = self.frame(np.asarray(latents_THWC, np.float64))
        if frame is None:
            return None
        file = io.BytesIO()
        Image.fromarray(frame).save(file, format="PNG")
        return file.getvalue()


def _rows(latents: np.ndarray) -> np.ndarray:
    flat = latents.reshape(-1, latents.shape[-1]).astype(np.float64)
    return np.concatenate([flat, np.ones((len(flat), 1))], axis=1)
