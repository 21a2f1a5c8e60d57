"""Videos that are valid but unusual, and ones that are broken, as bytes; nothing here depends on a download."""

import io
import struct
from fractions import Fraction

import av
import numpy as np

from osjax.data import video


def grey(frames, height=32, width=32, fps=24, step=4, times=None, fmt="yuv420p", gop=8, container="mp4") -> bytes:
    """A frame's grey is `step` times its number. times: of presentation, in 1 / fps seconds."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        codec = "libx264" if height % 2 == width % 2 == 0 else "mpeg4"
        stream = out.add_stream(codec, rate=fps, options={"crf": "1"} if codec == "libx264" else {"qscale": "1"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, fmt, gop
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), step * n % 256, np.uint8), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[n], Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def numbers(video_THWC, step=4) -> list[int]:
    return np.round(np.asarray(video_THWC, np.float64).mean((1, 2, 3)) / step).astype(int).tolist()


def with_matrix(data: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """The same file with another display matrix, whose entries are -1, 0 or 1."""
    at = data.index(b"tkhd") + 44
    one = 1 << 16
    return data[:at] + struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30) + data[at + 36 :]


def turned_clockwise(data: bytes) -> bytes:
    """The same file with a display matrix of a quarter turn, as telephones write it."""
    return with_matrix(data, 0, 1, -1, 0)


def noise(frames: int, side: int = 64) -> list[np.ndarray]:
    """Images that compress badly, so that a file's bytes are spread over its frames."""
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (frames, side, side, 3), np.uint8))


def first_index(images) -> bytes:
    """An MP4 with its index before the frames, as files for streaming have it."""
    import os
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "clip.mp4")
        with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as out:
            stream = out.add_stream("libx264", rate=24, options={"crf": "18", "bf": "0"})
            stream.height, stream.width, stream.pix_fmt, stream.gop_size = *images[0].shape[:2], "yuv420p", 8
            for image in images:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            out.mux(stream.encode())
        with open(path, "rb") as file:
            return file.read()


def sound_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def without_frames() -> bytes:
    """The header of a video without a single frame."""
    data = grey(2)
    at = data.index(b"stsz") + 12  # the sizes of all samples: none are left
    return data[:at] + struct.pack(">I", 0) + data[at + 4 :]


def damaged(count: int, seed: int = 0) -> list[bytes]:
    """Truncated and bit-flipped files, and files with a piece cut out or overwritten by noise."""
    rng = np.random.default_rng(seed)
    whole = video.encode(rng.integers(0, 255, (6, 32, 48, 3), np.uint8), 8)
    out = []
    for n in range(count):
        data = bytearray(whole)
        at = int(rng.integers(len(data)))
        match n % 4:
            case 0:
                data = data[:at]
            case 1:
                for place in rng.integers(len(data), size=int(rng.integers(1, 30))):
                    data[place] ^= 1 << int(rng.integers(8))
            case 2:
                del data[at : at + int(rng.integers(1, 200))]
            case _:
                data[at : at + 64] = rng.bytes(64)
        out.append(bytes(data))
    return out
