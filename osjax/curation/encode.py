"""One clip on its way into an H.264 file."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from osjax import atomic
from osjax.curation import frames
from osjax.curation.borders import Box
from osjax.data.video import SAME_BYTES, tag
from osjax.errors import UserError


@dataclass(frozen=True)
class Format:
    """How all clips of one video are written.

    box: what is kept of a frame. max_side: pixels of the long side.
    source_fps, fps: frames per second, read and written. crf, preset: of x264. key_seconds: between key frames.
    """

    box: Box
    max_side: int
    source_fps: float
    fps: float
    crf: int
    preset: str
    key_seconds: float


class ClipWriter:
    """Writes the frames of one shot to `path`. The file has its name only after `keep`.

    form: how. first: frame of the shot. start: its seconds in the source.
    """

    def __init__(self, path: Path, form: Format, first: av.VideoFrame, start: float):
        self.path, self.form, self.start, self.count, self.seconds = path, form, start, 0, 0.0
        self._partial = atomic.beside(path)
        box = form.box
        self.height, self.width = size(box.height, box.width, form.max_side)
        self._graph = frames.graph(
            first,
            [
                ("crop", f"{box.width}:{box.height}:{box.left}:{box.top}:exact=1"),
                ("scale", f"{self.width}:{self.height}:flags=area"),
                ("setsar", "1"),
                ("format", "yuv420p"),
                ("fps", f"{form.fps:.6f}:start_time=0:eof_action=pass"),
            ],
        )
        self._container = av.open(str(self._partial), "w", format="mp4")
        rate = Fraction(form.fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = self.width, self.height, "yuv420p"
        self._stream.gop_size = max(1, round(form.fps * form.key_seconds))
        self._stream.codec_context.thread_count = 1  # the caller works on several files
        tag(self._stream)
        self._stream.options = {"crf": str(form.crf), "preset": form.preset, **SAME_BYTES}
        self._tick = 1 / rate

    def add(self, frame: av.VideoFrame, seconds: float) -> None:
        """Take a frame that is shown from `seconds` of the source on."""
        self._encode(frames.push(self._graph, frame, seconds - self.start))

    def end(self, seconds: float) -> None:
        """The shot ends at `seconds` of the source."""
        self.seconds = seconds - self.start
        self._encode(frames.push(self._graph, None))
        self._container.mux(self._stream.encode())
        self._container.close()

    def _encode(self, made: list[av.VideoFrame]) -> None:
        for frame in made:
            frame.pts, frame.time_base, frame.pict_type = self.count, self._tick, 0
            self._container.mux(self._stream.encode(frame))
            self.count += 1

    def keep(self) -> None:
        """Give the file its name."""
        atomic.place(self._partial, self.path)

    def discard(self) -> None:
        """Remove what was written and not kept."""
        self._container.close()
        self._partial.unlink(missing_ok=True)


def size(height: int, width: int, max_side: int) -> tuple[int, int]:
    """The even (height, width), in pixels, with the long side at most `max_side`. UserError for too thin frames."""
    scale = min(1.0, max_side / max(height, width))
    height, width = (int(side * scale) // 2 * 2 for side in (height, width))
    if min(height, width) < 16:
        raise UserError(f"frames of {height}x{width} are too small for a clip: need 16 pixels at least")
    return height, width
