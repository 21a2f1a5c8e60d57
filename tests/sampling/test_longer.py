"""Videos made longer: the plan fits the model, the joint fades, and what was there stays."""

import numpy as np
import pytest

from osjax.errors import UserError
from osjax.sampling import longer
from osjax.sampling.job import Job
from tests.sampling import tiny


@pytest.fixture(scope="module")
def pipe():
    return tiny.pipeline()


def test_a_plan_takes_a_clip_where_windows_have_room_for_one_and_else_the_last_frame(pipe):
    short = longer.plan(pipe, tiny.SETTINGS, 8, 20)
    assert (short.settings.mode, short.overlap, short.frames) == ("i2v_head", 1, 28)
    assert short.seams == (8, 15, 22)  # windows of 8 frames of which the first is there already
    long = longer.plan(pipe, tiny.SETTINGS.changed(frames=40), 40, 16)
    assert (long.settings.mode, long.overlap, long.seams) == ("v2v_head", 32, (40, 48))
    early = longer.plan(pipe, tiny.SETTINGS.changed(frames=40), 8, 16)  # too short for a clip
    assert (early.settings.mode, early.overlap) == ("i2v_head", 1)
    padded = longer.plan(pipe, tiny.SETTINGS.changed(drop_padding=True), 8, 8)
    assert padded.seams == (8, 12)  # three frames of each window show its image again, and one more is it
    with pytest.raises(UserError, match="nothing to generate"):
        longer.plan(pipe, tiny.SETTINGS.changed(frames=1), 8, 8)


def test_a_video_that_is_made_longer_keeps_its_frames_and_each_window_goes_on_from_the_one_before(pipe):
    source = np.random.RandomState(0).randint(0, 256, (8, 32, 32, 3), np.uint8)
    wanted, told = longer.plan(pipe, tiny.SETTINGS, 8, 10), []
    video, latents = longer.extend(pipe, Job("a", 5), wanted, source, lambda state: told.append(1))
    assert video.shape == (18, 32, 32, 3) and latents.shape == (2, 4, 4, 8)
    assert len(told) == tiny.SETTINGS.steps * len(wanted.seams)
    np.testing.assert_array_equal(video[:8], source)
    first = pipe(["a"], mode="i2v_head", refs=[source[-1:]], seed=5).videos_BTHWC[0]
    np.testing.assert_array_equal(video[8:15], first[1:])
    second = pipe(["a"], mode="i2v_head", refs=[first[-1:]], seed=6).videos_BTHWC[0]
    np.testing.assert_array_equal(video[15:], second[1:4])
    other = longer.extend(pipe, Job("a", 6), wanted, source)[0]
    assert np.abs(other[8:].astype(int) - video[8:]).max() > 5


def test_clips_that_overlap_fade_into_each_other():
    old, new = (np.full((6, 1, 1, 3), value, np.uint8) for value in (0, 200))
    joined = longer.join(old, new, 3)[:, 0, 0, 0]
    assert joined.tolist() == [0, 0, 0, 50, 100, 150, 200, 200, 200]
    assert longer.join(old, new, 1)[:, 0, 0, 0].tolist() == [0] * 6 + [200] * 5
