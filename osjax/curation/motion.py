"""Motion of a clip: libavfilter's vmafmotion, the mean difference of blurred luma from frame to frame."""

import av
import numpy as np

from osjax.curation import frames


class Motion:
    """The score `motion` of one clip, whose frames it takes one after the other."""

    def __init__(self):
        self._graph, self._values = None, []

    def add(self, frame: av.VideoFrame, seconds: float) -> None:
        """Take the next frame, shown `seconds` after the first."""
        self._graph = self._graph or frames.graph(frame, [("format", "yuv420p"), ("vmafmotion", "")])
        made = frames.push(self._graph, frame, seconds)
        self._values += [float(f.metadata["lavfi.vmafmotion.score"]) for f in made]

    def value(self) -> float:
        """The mean over all frames but the first, which has none before it; 0 for a single frame."""
        return float(np.mean(self._values[1:])) if len(self._values) > 1 else 0.0
