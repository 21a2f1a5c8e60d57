import numpy as np
import pytest

from osjax.errors import UserError
from osjax.flow import guidance
from tests import golden

GOLDEN = golden.read_json("sampling_functions")


@pytest.mark.parametrize("case", GOLDEN["oscillation"], ids=lambda c: f"{c['guidance']}-{c['force_num']}")
def test_oscillation_matches_the_original(case):
    got = guidance.oscillate(case["guidance"], 20, case["force_num"])
    np.testing.assert_array_equal(got, np.asarray(case["steps_0_to_19"], np.float32))
    assert not np.array_equal(guidance.oscillate(case["guidance"], 20, case["force_num"] + 2), got)


@pytest.mark.parametrize("case", GOLDEN["temporal_guidance"], ids=lambda c: f"{c['num_steps']}x{c['latent_frames']}")
def test_temporal_ramp_matches_the_original(case):
    steps, frames = case["num_steps"], case["latent_frames"]
    tables = guidance.weights(steps, frames, 7.5, case["guidance_img"], image_ramp=True)
    assert golden.relative_error(tables.image_ST, case["per_step_per_frame"]) <= 1e-6
    flat = guidance.weights(steps, frames, 7.5, case["guidance_img"])
    assert golden.relative_error(flat.image_ST, case["per_step_per_frame"]) > 1e-2


def test_ramp_leaves_weights_of_one_or_less_alone():
    got = guidance.temporal_ramp(np.array([1.0, 0.5, 3.0], np.float32), 2)
    np.testing.assert_allclose(got, [[1, 1], [0.5, 0.5], [1, 3 - 2 * 2 / 3]], rtol=1e-6)


def needed(tables):
    return np.any(tables.coefficients() != 0, axis=-1).astype(int).tolist()


def test_each_step_needs_only_the_predictions_that_carry_weight():
    tables = guidance.weights(12, 3, 7.5, 3.0, text_oscillation=True, image_oscillation=True)
    assert needed(tables) == [[1, 1, 1]] * 11 + [[1, 0, 0]]
    assert needed(guidance.weights(1, 3, 7.5)) == [[1, 1, 0]]
    assert needed(guidance.weights(1, 3, 1.0)) == [[1, 0, 0]]
    assert needed(guidance.weights(1, 3, 1.0, 2.0)) == [[1, 1, 1]]
    assert needed(guidance.weights(1, 3, 2.0, 2.0)) == [[1, 0, 1]]
    assert needed(guidance.weights(1, 3, 0.0)) == [[0, 1, 0]]


def test_shares_sum_to_the_guided_prediction_and_to_one():
    full, given, free = np.random.RandomState(0).standard_normal((3, 4)).astype(np.float32)
    tables = guidance.weights(5, 4, 7.5, 3.0, image_ramp=True)
    shares_S3T = tables.coefficients()
    got = np.einsum("sbt,bt->st", shares_S3T, np.stack([full, given, free]))
    want = free + tables.image_ST * (given - free) + tables.text_S[:, None] * (full - given)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(shares_S3T.sum(1), 1, atol=1e-6)
    assert np.abs(want - free).max() > 0.1


def test_negative_weights_are_a_user_error():
    with pytest.raises(UserError, match="negative"):
        guidance.weights(5, 1, -1.0)


def test_outside_of_its_interval_guidance_is_one_and_its_predictions_are_not_needed():
    times = np.linspace(1, 0, 6)[:-1]
    tables = guidance.weights(5, 3, 7.5, 3.0)
    part = guidance.within(tables, times, 0.3, 0.8)
    assert part.text_S.tolist() == [1, 7.5, 7.5, 7.5, 1]
    assert part.image_ST[:, 2].tolist() == [1, 3, 3, 3, 1]
    assert needed(part) == [[1, 0, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0]]
    whole = guidance.within(tables, times, 0.0, 1.0)
    assert all(np.array_equal(*pair) for pair in zip(whole, tables, strict=True))


def test_weights_of_one_outside_do_not_hide_that_weights_inside_are_kept_as_they_oscillate():
    tables = guidance.weights(14, 1, 7.5, text_oscillation=True)
    part = guidance.within(tables, np.linspace(1, 0, 15)[:-1], 0.0, 0.5)
    assert part.text_S.tolist() == [1] * 7 + [7.5, 7.5, 7.5, 7.5, 1, 7.5, 1]
