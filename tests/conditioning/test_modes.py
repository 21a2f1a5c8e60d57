import pytest

from osjax.conditioning import modes
from osjax.errors import UserError
from tests import golden


@pytest.mark.parametrize(
    "case",
    golden.read_json("train_functions")["condition_config_is_mutated"],
    ids=lambda c: f"{c['variant']}-{c['frames']}",
)
def test_short_clips_lose_the_modes_that_the_original_drops_and_the_table_stays(case):
    causal = case["variant"] == "causal"
    T = (case["frames"] - 1) // 4 + 1
    table = {"t2v": 1.0, "v2v_head": 1.0, "v2v_tail": 1.0, "v2v_head_easy": 1.0, "v2v_tail_easy": 1.0}
    before = dict(table)
    assert sorted(modes.usable_weights(table, T, causal)) == sorted(case["left_in_the_callers_dict_afterwards"])
    assert table == before
    assert len(modes.usable_weights(table, 18, causal)) == 5


def test_reference_lengths_follow_the_autoencoder():
    head, tail = modes.HEAD_CLIP, modes.TAIL_CLIP_LONG
    assert (head.pixel_frames(True), head.latent_frames(True)) == (33, 9)
    assert (head.pixel_frames(False), head.latent_frames(False)) == (32, 8)
    assert (tail.pixel_frames(True), tail.latent_frames(True)) == (65, 17)
    assert (tail.latent_frames(False), tail.latent_frames(False, time_compression=8)) == (16, 8)
    assert tail.pixel_slice(100, causal=True) == slice(35, 100)
    assert modes.HEAD_IMAGE.pixel_slice(100, causal=True) == slice(0, 1)


def test_images_are_never_conditioned():
    assert modes.usable_weights({"i2v_head": 1.0}, 1, causal=True) == {"t2v": 1.0}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"i2v_heda": 1.0}, "unknown condition mode 'i2v_heda'"),
        ({"t2v": -1.0}, "0 or more"),
        ({"v2v_head": 1.0}, "add t2v"),
        ({}, "add t2v"),
    ],
)
def test_bad_mode_tables_are_user_errors(table, message):
    with pytest.raises(UserError, match=message):
        modes.usable_weights(table, 5, causal=True)
