"""What was trained on, told of prompts and sizes that are unlike it."""

import json
import re

import pytest

from osjax.sampling import trained
from osjax.sampling.settings import SampleSettings
from osjax.sampling.trained import Trained

KNOWN = Trained(((9, 256, 256), (33, 192, 320)), ("a", "circle", "red", ","), "sks", 12, "abcd")


def lines(prompt="sks, a red circle", frames=33, height=192, width=320, known=KNOWN):
    return known.unlike([prompt], frames, height, width)


def test_what_is_like_training_is_no_warning():
    assert not lines(known=Trained()) and not lines("SKS, a RED circle", known=Trained(trigger="sks"))
    known = Trained(KNOWN.shapes, ("sks", *KNOWN.words), "sks")
    assert not lines(known=known) and not lines(known=known, frames=24, height=208)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"prompt": "sks, a mauve circle"}, "the model never met sks, mauve, .* words a, circle, red, ,"),
        ({"prompt": "a red circle"}, "the prompt lacks 'sks', the word that the adapters were trained with"),
        ({"frames": 65}, "65 frames are far from those trained on: 9, 33"),
        ({"frames": 1}, "1 frames are far from those trained on: 9, 33"),
        ({"height": 768, "width": 768}, "768x768 pixels are far from .* nearest are 256x256, 320x192"),
        ({"height": 64, "width": 256}, "256x64 pixels are far from .* nearest are 320x192"),
    ],
)
def test_what_is_unlike_says_what_was_trained(changed, says):
    assert any(re.search(says, line) for line in lines(**changed))


def test_several_prompts_are_counted_together():
    told = Trained(trigger="sks").unlike(["a", "sks", "b"], 1, 8, 8)
    assert told == ["2 of 3 prompts lack 'sks', the word that the adapters were trained with"]


def test_json_gives_the_same_back_and_damage_is_refused():
    assert trained.of_json(json.loads(json.dumps(KNOWN.to_json()))) == KNOWN and trained.of_json({}) == Trained()
    for damaged in ({"shapes": [[1, 2]]}, {"shapes": [[1, 0, 4]]}, {"words": 4}, {"clips": "x"}, {"shapes": "ab"}):
        with pytest.raises((ValueError, TypeError)):
            trained.of_json(damaged)


def test_settings_that_nothing_reads_beside_others_are_named():
    names = SampleSettings(height=32, width=32).unread()
    assert {"resolution", "aspect_ratio", "guidance_img", "image_steps", "image_ramp"} <= names
    exact = {"reuse_limit", "reuse_run", "reuse_first", "reuse_lines"}
    assert SampleSettings(mode="i2v_head").unread() == {"image_resolution", "image_steps", "image_guidance"} | exact
    assert not SampleSettings(reuse="first_block").unread() & exact
    assert SampleSettings(mode="t2i2v").unread() == exact
