"""Frames of a clip against the original's choice."""

import random

import numpy as np
import pytest

from osjax.data import frames
from osjax.errors import UserError
from tests import golden

CASES = golden.read_json("data_buckets")["temporal_random_crop"]


def _window(case):
    return case["total_frames"], case["num_frames"], case["interval"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["python_random_seed"]))
def test_chosen_frames_match_the_original(case):
    latest = frames.latest_start(*_window(case))
    start = random.Random(case["python_random_seed"]).randint(0, latest)
    assert frames.pick(*_window(case), start).tolist() == case["indices"]


def test_plain_steps_do_not_match_the_original():
    case = next(c for c in CASES if c["interval"] == 2)
    first, step = case["indices"][0], case["interval"]
    assert list(range(first, first + step * case["num_frames"], step)) != case["indices"]


def test_the_latest_start_lies_one_before_the_last_that_fits():
    assert [frames.latest_start(total, 33, 1) for total in (33, 34, 35)] == [0, 0, 1]


def test_a_window_cut_short_by_the_end_is_denser_and_too_few_frames_are_refused():
    np.testing.assert_array_equal(frames.pick(9, 5, interval=2), [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(frames.pick(5, 5, interval=2), range(5))
    with pytest.raises(UserError, match="4 frames, 5 needed"):
        frames.pick(4, 5)
