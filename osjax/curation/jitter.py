"""Jitter of a camera: how much PySceneDetect's content value changes from frame to frame."""

import av
import numpy as np

from osjax.curation.isolate import need

SIDE = 256  # pixels; PySceneDetect scales frames down to about this width itself


class Jitter:
    """The score `jitter` of one clip, whose frames it takes one after the other."""

    def __init__(self):
        scenedetect = need("scenedetect", "data")
        self._detector = scenedetect.ContentDetector()
        self._detector.stats_manager = self._stats = scenedetect.StatsManager()
        self._time, self._count = scenedetect.FrameTimecode, 0

    def add(self, frame: av.VideoFrame, seconds: float) -> None:
        """Take the next frame. seconds: not used, the value is by frame."""
        scale = min(1.0, SIDE / max(frame.width, frame.height))
        small = frame.reformat(max(2, round(frame.width * scale)), max(2, round(frame.height * scale)), "bgr24")
        self._detector.process_frame(self._time(self._count, 24.0), small.to_ndarray())
        self._count += 1

    def value(self) -> float:
        """The mean over all frames but the first; 0 for a single frame."""
        key = self._detector.FRAME_SCORE_KEY
        values = [self._stats.get_metrics(self._time(i, 24.0), [key])[0] for i in range(1, self._count)]
        return float(np.mean(values)) if values else 0.0
