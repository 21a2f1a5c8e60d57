"""The planner's arithmetic against the published cost of the original, and `osjax plan --check`, which prints it."""

import pytest

from osjax.__main__ import main
from osjax.configs import curriculum
from osjax.planning import published


@pytest.fixture(scope="module")
def checks():
    return {check.what: check for check in published.checks()}


def test_published_costs_and_gains_come_out(checks):
    assert len(checks) == 9 and all(check.good for check in checks.values()), published.table()


def test_the_command_prints_them(checks, capsys):
    assert (
        main(["plan", "--config=configs/smoke.py", "--stage=stage1_t2v", "--target=h200x8", "--no-compile", "--check"])
        == 0
    )
    said = capsys.readouterr().out
    assert "| stage 3: 768px T/I2V, GPU-days | 1,536 |" in said and ": NO" not in said
    assert all(what in said for what in checks)


def test_the_step_times_come_out_without_the_factor_that_is_fitted_to_days(checks):
    steps = [check for what, check in checks.items() if "seconds of a step" in what]
    assert len(steps) == 3 and all(abs(c.planned / c.published - 1) < 0.15 for c in steps)


def test_a_planner_that_forgot_the_encoder_would_be_found_out(monkeypatch):
    monkeypatch.setattr(published, "ENCODER_UTILISATION", 1e9)
    assert not all(check.good for check in published.checks())


def test_fewer_clips_a_step_take_more_steps():
    """The 224 GPUs of stage 1 took three clips each; a group of four took two in stage 3."""
    assert published.steps_for_as_many_clips("stage1_t2v_256", 3 * 224) == 85_000
    assert published.steps_for_as_many_clips("stage1_t2v_256", 3 * 64) == 297_500
    assert published.steps_for_as_many_clips("stage3_i2v_768", 2 * 192 // 4 // 3) == 3 * 13_000
    assert published.steps_for_as_many_clips("stage1_t2v", 3) is None


def test_stages_of_the_curriculum_are_known_by_name():
    assert {stage.config for stage in published.STAGES} <= set(curriculum.get_config().stages)


@pytest.mark.parametrize(("family", "frames"), [("hunyuan", 41), ("dcae", 40)])
def test_the_work_of_encoding_long_clips_follows_from_three_short_ones_exactly(family, frames):
    direct = published.autoencoder_flops(family, frames, 32, "encode")
    assert published.encoding_flops(family, frames, 32) == direct
    assert direct != published.autoencoder_flops(family, 17 if family == "hunyuan" else 16, 32, "encode")
