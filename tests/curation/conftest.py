"""Real files of every kind that curation meets: good videos, and broken ones."""

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from osjax.data import video

FPS = 24


def picture(T: int, H: int, W: int, seed: int = 0, speed: float = 2.0) -> np.ndarray:
    """uint8 (T, H, W, 3): a bright pattern that moves to the right by `speed` pixels a frame; another for each seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 255, (H // 8 + 1, W // 8 + 1, 3), dtype=np.uint8)
    fine = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:H, :W]
    return np.stack([np.roll(fine, int(t * speed), 1) for t in range(T)])


def write(path: Path, frames_THWC: np.ndarray, fps: float = FPS, **kwargs) -> Path:
    video.write_mp4(path, frames_THWC, fps, **kwargs)
    return path


def write_raw(path: Path, frames, fps=FPS, pix_fmt="yuv420p", pts=None, options=None) -> Path:
    """A video in any pixel format, with any time stamps (in 1/1000 s)."""
    from fractions import Fraction

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", **(options or {})})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (pts[i] if pts else round(1000 * i / fps)), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turned(path: Path, source: Path) -> Path:
    """A copy that asks players to turn it by 90 degrees clockwise, as phones write portrait videos."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of a version 0 header: a b u, c d v, x y w
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> dict[str, Path]:
    """Files of all kinds by name. Those named in `sound` of the tests hold a video that can be used."""
    folder = tmp_path_factory.mktemp("zoo")
    good = write(folder / "good.mp4", picture(60, 64, 96))
    data = good.read_bytes()
    files = {"good": good, "rotated": turned(folder / "rotated.mp4", good), "audio": audio_only(folder / "audio.mp4")}
    files["ten_bit"] = write_raw(folder / "ten_bit.mp4", picture(60, 64, 96), pix_fmt="yuv420p10le")
    files["odd"] = write_raw(folder / "odd.mkv", picture(60, 65, 97), pix_fmt="yuv444p")
    times = np.cumsum(np.random.default_rng(0).integers(5, 120, 60)).tolist()
    files["variable_rate"] = write_raw(folder / "variable_rate.mp4", picture(60, 64, 96), pts=times)
    files["tiny"] = write_raw(folder / "tiny.mkv", picture(60, 8, 8))
    files["one_frame"] = write(folder / "one_frame.mp4", picture(1, 64, 96))
    for name, content in {
        "empty": b"",
        "text": b"this is no video at all" * 100,
        "header_only": data[:40],
        **{f"cut_{part}": data[: len(data) * part // 100] for part in (10, 50, 90, 99)},
        "no_frames": _without_frames(data),
    }.items():
        files[name] = folder / f"{name}.mp4"
        files[name].write_bytes(content)
    front = folder / "front.mp4"  # with its index first, so that a part of it opens
    _index_first(good, front)
    rng = np.random.default_rng(1)
    for i in range(6):
        flipped = bytearray((front if i % 2 else good).read_bytes())
        for at in rng.integers(0, len(flipped), 16 * (i + 1)):
            flipped[at] ^= 1 << rng.integers(8)
        files[f"flipped_{i}"] = folder / f"flipped_{i}.mp4"
        files[f"flipped_{i}"].write_bytes(flipped)
    for part in (30, 70):
        files[f"front_cut_{part}"] = folder / f"front_cut_{part}.mp4"
        files[f"front_cut_{part}"].write_bytes(front.read_bytes()[: front.stat().st_size * part // 100])
    return files


def _index_first(source: Path, target: Path) -> None:
    with (
        av.open(str(source)) as found,
        av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as made,
    ):
        stream = made.add_stream_from_template(found.streams.video[0])
        for packet in found.demux(found.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)


def _without_frames(data: bytes) -> bytes:
    """The file with all its pictures zeroed."""
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    return data[:begin] + bytes(end - begin) + data[end:]
