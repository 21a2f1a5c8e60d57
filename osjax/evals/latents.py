"""Statistics of latents over many clips, and the normalisation that they imply."""

import numpy as np

from osjax.types import Json

DEAD = 1e-3  # a channel whose deviation is this small beside the mean one carries nothing


class LatentStatistics:
    """Mean and deviation of every channel, gathered clip by clip in float64 without keeping any of them."""

    def __init__(self):
        self.count = 0
        self.smallest, self.largest = np.inf, -np.inf

    def add(self, latents_BTHWC: np.ndarray) -> None:
        """Take the latents of some clips, any (..., C).

        Means and squares are merged as in Chan et al. 1979, so that large means cost no digits.
        """
        x = np.asarray(latents_BTHWC, np.float64).reshape(-1, latents_BTHWC.shape[-1])
        mean, squares = x.mean(0), np.square(x - x.mean(0)).sum(0)
        if self.count == 0:
            self.mean, self.squares = np.zeros_like(mean), np.zeros_like(mean)
        total = self.count + len(x)
        away = mean - self.mean
        self.squares = self.squares + squares + np.square(away) * self.count * len(x) / total
        self.mean = self.mean + away * len(x) / total
        self.count = total
        self.smallest, self.largest = min(self.smallest, float(x.min())), max(self.largest, float(x.max()))

    @property
    def std(self) -> np.ndarray:
        """Deviation of each channel (C,)."""
        return np.sqrt(self.squares / self.count)

    @property
    def overall(self) -> tuple[float, float]:
        """Mean and deviation over all channels together."""
        mean = float(self.mean.mean())
        return mean, float(np.sqrt((np.square(self.std) + np.square(self.mean - mean)).mean()))

    def report(self) -> Json:
        """All of it as JSON values. `implied`: latent = scale * (z - shift) has zero mean and unit variance."""
        mean, std = self.overall
        dead = self.std < DEAD * self.std.mean()
        return {
            "values": self.count * len(self.mean),
            "mean": mean,
            "std": std,
            "min": self.smallest,
            "max": self.largest,
            "dead_channels": int(dead.sum()),
            "channel_mean": self.mean.tolist(),
            "channel_std": self.std.tolist(),
            "implied": {"scale": 1 / max(std, 1e-12), "shift": mean},
        }
