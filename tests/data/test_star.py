"""A shape that the demo never trains on, and the stage that fine-tunes its model on it."""

from dataclasses import replace

import numpy as np
import pytest

from osjax.data import clips, star
from osjax.parts import config, run


def test_a_star_has_five_tips_and_stays_within_the_reach_of_all_shapes():
    turns = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    edge = np.array([_radius(turn) for turn in turns[::10]])
    peaks = (edge > np.roll(edge, 1)) & (edge >= np.roll(edge, -1))
    assert peaks.sum() == 5 and edge.max() <= clips.LONGEST and edge.min() < 0.5
    assert clips.distance("star", np.zeros(1), np.zeros(1), 1.0)[0] < 0


def _radius(turn):
    """Where the outline lies in a direction, in radii."""
    reach = np.linspace(0, 1.5, 1501)
    inside = clips.distance("star", reach * np.sin(turn), -reach * np.cos(turn), 1.0) < 0
    return reach[inside].max()


def test_its_clips_show_some_colours_and_directions_and_look_like_no_other_shape(tmp_path):
    made = star.specs(20)
    assert {spec.colour for spec in made} == set(star.COLOURS) and {spec.direction for spec in made} == set(
        star.DIRECTIONS
    )
    assert all("star" in spec.caption for spec in made) and "star" not in clips.SHAPES
    assert star.write(tmp_path, 2).is_file() and len(list(tmp_path.glob("*.mp4"))) == 2
    shown = clips.render(made[0], 40)
    for shape in clips.SHAPES:
        assert np.abs(shown.astype(int) - clips.render(replace(made[0], shape=shape), 40)).max() > 50


def test_the_stage_goes_on_with_the_demo_s_last_model():
    made = run.of_config(config.load("configs/finetune/star.py"), ignored=("report",))
    assert list(made.stages)[-2:] == ["stage3_i2v_high", "star"]
    stage = made.stages["star"]
    assert stage.model == made.stages["stage3_i2v_high"].model and stage.adapters.rank == 16
    assert stage.optimizer.decay_steps == stage.keys.steps
    with pytest.raises(KeyError):
        _ = run.of_config(config.load("configs/demo.py"), ignored=("report",)).stages["star"]
