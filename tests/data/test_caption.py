"""What captions say of rate and motion; the original's training captions are checked in test_buckets.py."""

import math

import pytest

from osjax.data import caption


def test_training_and_sampling_say_the_same():
    trained = caption.training_caption("A cat runs.", 30.0, 24, 3.6)
    assert trained == caption.suffixed("A cat runs.", 15, 4) == "A cat runs. 15 FPS, 4 motion score."
    assert trained != caption.suffixed("A cat runs.", 24, 4)


@pytest.mark.parametrize(
    "fps, motion, words",
    [
        (24, None, " 24 FPS."),
        (24.0, math.nan, " 24 FPS."),
        (23.976, 1, " 23.976 FPS, 1 motion score."),
        (None, None, ""),
    ],
)
def test_what_is_not_known_is_not_said(fps, motion, words):
    assert caption.suffixed("A cat.", fps, motion) == "A cat." + words


def test_a_prompt_that_says_it_already_stays():
    said = caption.suffixed("A cat.", 24, 4)
    assert caption.suffixed(said, 16, 7) == said
    assert caption.suffixed("It runs at 24 FPS. Really.", 24) == "It runs at 24 FPS. Really. 24 FPS."
