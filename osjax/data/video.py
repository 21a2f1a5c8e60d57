"""MP4 in and out through PyAV."""

import io
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from osjax import atomic
from osjax.data import opened
from osjax.data.shown import BT709, Viewer, limited
from osjax.errors import UserError

# With mbtree, which is on by default, about one small clip in a thousand differs from run to run where the CPU has
# AVX-512, and so would all that is trained on it.
SAME_BYTES = {"x264-params": "mbtree=0"}


def decode(source: Path | str | bytes, num_frames: int | None = None) -> np.ndarray:
    """The first `num_frames` frames of a video, or all, as a player shows them: uint8 (T, H, W, 3).

    source: a path, or the bytes of a file. UserError naming the file when it is empty, corrupt, holds no video or is
    too short.
    """
    frames = []
    with opened.video(source) as (container, stream):
        viewer = Viewer(stream)
        for i, frame in enumerate(container.decode(stream)):
            if i == num_frames:
                break
            frames.append(viewer(frame))
            if frames[-1].shape != frames[0].shape:
                name = opened.name_of(source)
                raise UserError(f"{name} changes its size on the way: remove it from the table")
    if not frames or (num_frames is not None and len(frames) < num_frames):
        wanted = num_frames or "at least 1"
        name = opened.name_of(source)
        raise UserError(f"{name} has too few frames ({len(frames)}, needs {wanted}): remove it from the table")
    return np.stack(frames)


def tag(stream: VideoStream) -> None:
    """Say in a stream that is to be written what its colours are: BT.709 of limited range, as `shown.limited` makes."""
    context = stream.codec_context
    context.color_range, context.colorspace = ColorRange.MPEG, Colorspace.ITU709
    context.color_primaries = context.color_trc = BT709


def encode(video_THWC: np.ndarray, fps: float, crf: int = 18, comment: str | None = None) -> bytes:
    """The bytes of an H.264 MP4, always the same ones for the same frames.

    video_THWC: uint8 (T, H, W, 3). fps: frames per second. crf: 0 is lossless, 23 x264's default. comment: text in the
    file's metadata. UserError for odd sizes.
    """
    T, H, W, _ = video_THWC.shape
    if H % 2 or W % 2:
        raise UserError(f"H.264 with 4:2:0 colour needs even sizes, got {H}x{W}: resize to {H + H % 2}x{W + W % 2}")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        if comment is not None:
            container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=round(fps), options={"crf": str(crf), **SAME_BYTES})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        stream.codec_context.thread_count = 1  # small clips; the caller parallelises over files
        tag(stream)
        for image in np.ascontiguousarray(video_THWC):
            for packet in stream.encode(limited(av.VideoFrame.from_ndarray(image, format="rgb24"))):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return file.getvalue()


def write_mp4(path: Path, video_THWC: np.ndarray, fps: float, crf: int = 18) -> None:
    """Write a video to the file `path` as an H.264 MP4. video_THWC, fps, crf: see `encode`."""
    atomic.write_bytes(path, encode(video_THWC, fps, crf))
