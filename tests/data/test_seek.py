"""Frames by number: the very ones of a whole decoding, from any kind of file, and no file crashes or hangs."""

import time

import numpy as np
import pytest

from osjax.data import clips, seek, video
from osjax.errors import UserError
from tests.data import odd_videos


@pytest.fixture(scope="module")
def moving():
    """60 frames with B-frames and a key frame every 12."""
    return odd_videos.grey(60, gop=12)


@pytest.mark.parametrize("at", [[0], [59], [3, 4, 5], [11, 12, 13], [0, 30, 59], [40, 41, 42, 43], list(range(60))])
def test_frames_are_those_of_a_whole_decoding(moving, at):
    whole = video.decode(moving)
    got = seek.decode_at(moving, np.array(at))
    np.testing.assert_array_equal(got, whole[at])
    assert not np.array_equal(got, whole[[(n + 1) % 60 for n in at]])


def test_real_motion_comes_back_the_same():
    data = video.encode(clips.render(clips.specs(1, 0, clips.combinations())[0], 48, 30), 8)
    np.testing.assert_array_equal(seek.decode_at(data, np.array([7, 20, 29])), video.decode(data)[[7, 20, 29]])


def test_few_frames_of_a_long_clip_cost_a_fraction_of_it():
    data = odd_videos.grey(400, 64, 64, step=1, gop=24)

    def seconds(work):
        work()
        start = time.process_time()
        for _ in range(3):
            work()
        return time.process_time() - start

    assert 2 * seconds(lambda: seek.decode_at(data, np.arange(300, 309))) < seconds(lambda: video.decode(data))


def test_a_turned_clip_comes_upright():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (1, 2, 3, 1)), np.ones((4, 16, 16, 3))).astype(np.uint8)
    data = video.encode(image, 8, crf=1)
    plain = seek.decode_at(data, np.array([1]))
    upright = seek.decode_at(odd_videos.turned_clockwise(data), np.array([1]))
    assert plain.shape == (1, 32, 48, 3) and upright.shape == (1, 48, 32, 3)
    np.testing.assert_array_equal(upright[0], np.rot90(plain[0], -1))
    assert not np.array_equal(upright[0], np.rot90(plain[0], 1))


def test_a_variable_frame_rate_keeps_its_speed():
    times = [0, 1, 2, 3, 4, 5, 6, 7, 15, 23]  # eight quick frames, then two slow ones
    slow = odd_videos.grey(10, step=20, times=times)
    got = odd_videos.numbers(seek.decode_at(slow, np.arange(10)), 20)
    assert got == [0, 2, 5, 7, 7, 7, 8, 8, 8, 9]
    even = odd_videos.grey(10, step=20)
    assert odd_videos.numbers(seek.decode_at(even, np.arange(10)), 20) == list(range(10)) != got


@pytest.mark.parametrize(
    "kwargs",
    [{"fmt": "yuv420p10le"}, {"height": 33, "width": 35}, {"container": "matroska"}, {"container": "mpegts"}],
    ids=["10-bit", "odd size", "matroska", "stream"],
)
def test_unusual_files_decode(kwargs):
    data = odd_videos.grey(20, step=10, **kwargs)
    got = seek.decode_at(data, np.array([2, 9, 19]))
    assert got.dtype == np.uint8 and got.shape[1:3] == (kwargs.get("height", 32), kwargs.get("width", 32))
    assert odd_videos.numbers(got, 10) == [2, 9, 19]


BROKEN = {
    "empty": b"",
    "text": b"no video " * 99,
    "sound": odd_videos.sound_only(),
    "none": odd_videos.without_frames(),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_video_is_a_user_error_that_names_it(tmp_path, kind):
    path = tmp_path / f"{kind}.mp4"
    path.write_bytes(BROKEN[kind])
    with pytest.raises(UserError, match=f"{kind}.mp4") as error:
        seek.decode_at(path, np.arange(2))
    assert "\n" not in str(error.value)


def test_frames_beyond_the_end_are_a_user_error(moving):
    with pytest.raises(UserError, match="too few frames"):
        seek.decode_at(moving, np.array([58, 60]))


@pytest.mark.timeout(60)
def test_damaged_files_give_frames_or_an_error_and_nothing_else():
    outcomes = {"frames": 0, "error": 0}
    for data in odd_videos.damaged(200):
        try:
            assert seek.decode_at(data, np.arange(6)).shape[0] == 6
            outcomes["frames"] += 1
        except UserError as error:
            assert "\n" not in str(error)
            outcomes["error"] += 1
    assert min(outcomes.values()) > 10
