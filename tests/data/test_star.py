"""A shape that the demo never trains on, and the stage that fine-tunes its model on it."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from osjax.data import clips, star
from osjax.parts import config, run

ROOT = Path(__file__).parents[2]


def test_a_star_has_four_tips_and_stays_within_the_picture():
    turns = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    edge = np.array([_radius(turn) for turn in turns[::10]])
    peaks = (edge > np.roll(edge, 1)) & (edge >= np.roll(edge, -1))
    assert peaks.sum() == clips.POINTS == 4 and edge.max() <= clips.TIP and edge.min() < 0.7
    assert clips.distance("star", np.zeros(1), np.zeros(1), 1.0)[0] < 0
    for spec in [*star.specs(30), *star.unseen(30)]:
        way = np.abs(clips.DIRECTIONS[spec.direction]) * spec.travel / 2 + clips.TIP * spec.radius
        assert (np.array(spec.centre) - way >= -1e-9).all() and (np.array(spec.centre) + way <= 1 + 1e-9).all()


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
    others = star.unseen(20)
    assert not {s.colour for s in others} & set(star.COLOURS) and not {s.direction for s in others} & set(
        star.DIRECTIONS
    )
    assert star.write(tmp_path, 2, 3).is_file() and len(list(tmp_path.glob("*.mp4"))) == 5
    assert (tmp_path / "clips.csv").read_text().count("star") == 2
    shown = clips.render(made[0], 40)
    for shape in clips.SHAPES:
        assert np.abs(shown.astype(int) - clips.render(replace(made[0], shape=shape), 40)).max() > 50


def test_the_page_s_command_writes_the_clips_that_its_next_command_names(tmp_path):
    page = (ROOT / "docs" / "finetune.md").read_text()
    (command,) = re.findall(r"^python -c .*$", page, re.MULTILINE)
    given = re.search(r"osjax finetune (runs/stars/\S+) --config=configs/finetune/star.py", page)[1]
    subprocess.run([sys.executable, *shlex.split(command)[1:]], cwd=tmp_path, check=True, capture_output=True)
    assert len((tmp_path / given).read_text().splitlines()) == 1 + star.STARS + star.OLD


def test_the_run_adapts_the_demo_s_last_model():
    made = run.of_config(config.load("configs/finetune/star.py")).stages["star"]
    last = run.of_config(config.load("configs/demo.py"), ignored=("report",)).stages["stage3_i2v_high"]
    assert made.model == last.model and made.adapters.rank == 16 and made.autoencoder.model == last.autoencoder.model
    assert made.keys.start.weights == "runs/demo/stage3_i2v_high/checkpoints"
    assert made.optimizer.decay_steps == made.keys.steps and made.keys.sample == last.keys.sample
