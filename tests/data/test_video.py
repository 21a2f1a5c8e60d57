"""MP4 files out and in, and files that are none."""

import numpy as np
import pytest

from osjax.data import clips, video
from osjax.errors import UserError


def _ramp(frames=6, height=32, width=48):
    """A smooth clip that gets brighter: the codec keeps it nearly exactly, and frames can be told apart."""
    y, x = np.mgrid[0:height, 0:width]
    base = (60 + x + y)[None, :, :, None] + 12 * np.arange(frames)[:, None, None, None]
    return np.broadcast_to(base, (frames, height, width, 3)).astype(np.uint8)


def test_a_clip_comes_back_from_mp4_nearly_unchanged(tmp_path):
    clip = _ramp()
    video.write_mp4(tmp_path / "a.mp4", clip, 8, crf=10)
    back = video.decode(tmp_path / "a.mp4").astype(int)
    assert back.shape == clip.shape
    assert np.abs(back - clip).mean() < 2 < np.abs(back[::-1] - clip).mean()


def test_decoding_stops_where_asked(tmp_path):
    clip = _ramp()
    data = video.encode(clip, 8, crf=10)
    (tmp_path / "a.mp4").write_bytes(data)
    part = video.decode(data, num_frames=2)
    np.testing.assert_array_equal(part, video.decode(tmp_path / "a.mp4")[:2])
    assert not np.array_equal(part, video.decode(data)[1:3])


def test_a_clip_is_always_the_same_bytes():
    """Training is bit-identical from procedural clips on only if this holds; x264's defaults break it now and then."""
    train, _ = clips.split()
    drawn = [clips.render(spec, 80) for spec in clips.specs(60, 0, train)]
    first = [video.encode(clip, 8, crf=12) for clip in drawn]
    for _ in range(8):
        assert [video.encode(clip, 8, crf=12) for clip in drawn] == first


def test_odd_sizes_are_refused_with_the_next_even_ones():
    with pytest.raises(UserError, match="34x48"):
        video.encode(_ramp(2, 33, 48), 8)


def _truncated(path):
    path.write_bytes(video.encode(_ramp(), 8)[:200])


def _sound_only(path):
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)


BROKEN = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no video at all " * 20),
    "truncated": _truncated,
    "sound": _sound_only,
    "missing": lambda path: None,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_video_is_a_user_error_that_names_it(tmp_path, kind):
    path = tmp_path / f"{kind}.mp4"
    BROKEN[kind](path)
    with pytest.raises(UserError, match=f"{kind}.mp4") as error:
        video.decode(path)
    assert "\n" not in str(error.value)


def test_a_clip_that_is_too_short_says_how_long_it_is(tmp_path):
    video.write_mp4(tmp_path / "a.mp4", _ramp(3), 8)
    with pytest.raises(UserError, match=r"a\.mp4 has too few frames \(3, needs 5"):
        video.decode(tmp_path / "a.mp4", num_frames=5)
