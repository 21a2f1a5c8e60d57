import numpy as np
import pytest

from osjax.errors import UserError
from osjax.flow import path, shift
from tests import golden

SAMPLING = golden.read_json("sampling_functions")
TRAINING = golden.read_json("train_functions")


@pytest.mark.parametrize(
    "case", SAMPLING["schedule"], ids=lambda c: f"{c['num_steps']}x{c['image_seq_len']}x{c['num_frames']}"
)
def test_schedule_matches_the_original(case):
    times = shift.schedule(
        case["num_steps"],
        case["image_seq_len"],
        case["num_frames"],
        shift=case.get("shift", True),
        alpha=case.get("shift_alpha"),
        low=case.get("base_shift", 1.0),
        high=case.get("max_shift", 3.0),
    )
    assert times.dtype == np.float32
    assert golden.relative_error(times, case["timesteps"]) <= 1e-6


def test_schedule_of_one_frame_more_differs():
    case = SAMPLING["schedule"][0]
    other = shift.schedule(case["num_steps"], case["image_seq_len"], case["num_frames"] + 1)
    assert golden.relative_error(other, case["timesteps"]) > 1e-4


def test_time_shift_and_alpha_match_the_original():
    for case in SAMPLING["time_shift"]:
        got = shift.time_shift(np.asarray(case["t"], np.float32), case["alpha"])
        assert golden.relative_error(got, case["out"]) <= 1e-6
    for case in SAMPLING["res_lin"]:
        assert shift.alpha_for(case["x"], 1) == pytest.approx(case["default"], rel=1e-12)
        assert shift.alpha_for(case["x"], 1, 0.5, 1.15) == pytest.approx(case["y1=0.5,y2=1.15"], rel=1e-12)


@pytest.mark.parametrize("case", TRAINING["shift"], ids=lambda c: "x".join(map(str, c["latent"])))
def test_training_alpha_and_timesteps_match_the_original(case):
    _, T, H, W = case["latent"]
    alpha = shift.training_alpha(T, H, W)
    assert alpha == pytest.approx(case["shift_alpha"], rel=1e-12)
    normal = np.asarray(case["normal_draw"], np.float32)
    assert golden.relative_error(path.shifted_logistic(normal, alpha), case["t"]) <= 1e-6
    assert golden.relative_error(path.shifted_logistic(normal, alpha * 1.01), case["t"]) > 1e-5


def test_no_steps_is_a_user_error():
    with pytest.raises(UserError, match="at least 1"):
        shift.schedule(0, 256, 1)
