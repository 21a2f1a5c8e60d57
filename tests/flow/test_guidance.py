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


def test_each_step_needs_only_the_predictions_that_its_weights_use():
    tables = guidance.weights(12, 3, 7.5, 3.0, text_oscillation=True, image_oscillation=True)
    assert tables.ways().tolist() == [3] * 11 + [1]
    assert guidance.weights(2, 3, 7.5).ways().tolist() == [2, 2]
    assert guidance.weights(2, 3, 1.0).ways().tolist() == [1, 1]
    assert guidance.weights(2, 3, 1.0, 2.0).ways().tolist() == [3, 3]


def test_fewer_predictions_give_the_same_numbers_where_weights_are_one():
    full, text_free, free = np.random.RandomState(0).standard_normal((3, 2, 6, 4)).astype(np.float32)
    three = guidance.combine((full, text_free, free), 1.0, 1.0)
    np.testing.assert_allclose(three, full, atol=1e-6)
    np.testing.assert_allclose(
        guidance.combine((full, text_free, free), 7.5, 1.0), guidance.combine((full, text_free), 7.5, 1.0), atol=1e-5
    )
    assert np.abs(guidance.combine((full, text_free, free), 1.0, 2.0) - full).max() > 0.1


def test_negative_weights_are_a_user_error():
    with pytest.raises(UserError, match="negative"):
        guidance.weights(5, 1, -1.0)
