"""Stages that distil, as `osjax train` runs them, and what `osjax sample` takes of what they leave."""

import json
import shutil

import numpy as np
import pytest

import osjax
from osjax.__main__ import main
from osjax.errors import UserError
from osjax.parts import run
from osjax.parts.config import load
from osjax.sampling.distilled import Distilled, of_json
from osjax.sampling.settings import SampleSettings
from osjax.stages.curriculum import distilled_of
from osjax.training import metrics

CONFIG = """
from ml_collections import ConfigDict
from tests.e2e import two_stages

def get_config():
    cfg = two_stages.get_config()
    cfg.clips.train = 16
    cfg.stages.stage1_t2v.steps = 3
    cfg.stages.stage1_t2v.optimizer.update(lr=0.05, warmup_steps=0)
    told = dict(guidance_embed=True, guidance_img_embed=True)
    for name, start in (("guided", "stage1_t2v"), ("few", "guided")):
        stage = two_stages.diffusion()
        stage.steps, stage.start.stage = 4, start
        stage.modes = ConfigDict({"t2v": 1.0, "i2v_head": 1.0})
        stage.checkpoint.every = 2
        stage.model.update(told)
        stage.distill.update(guidance=(1.0, 3.0), guidance_img=(1.0, 2.0))
        stage.sample.update(guidance=2.0, guidance_img=1.5)
        cfg.stages[name] = stage
    cfg.stages.guided.distill.what = "guidance"
    cfg.stages.few.distill.update(what="steps", steps=2, inner=3)
    cfg.stages.few.sample.steps = 2
    cfg.order = (*cfg.order, "guided", "few")
    return cfg
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "distil.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def guided(config):
    """The same config without its last stage."""
    path = config.with_name("guided.py")
    without = "    cfg.order = cfg.order[:-1]\n    del cfg.stages.few\n    return cfg"
    path.write_text(CONFIG.replace("    return cfg", without))
    return path


@pytest.fixture(scope="module")
def workdir(guided, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    assert train(guided, folder) == 0
    return folder


def train(config, folder, *more):
    cache = f"--config.compilation_cache={config.parent / 'compiled'}"
    return main(["train", f"--config={config}", f"--workdir={folder}", cache, *more])


def lines(folder):
    return [line["loss"] for line in metrics.read(folder / "metrics.jsonl") if line["stage"] == "guided"]


@pytest.fixture
def interrupted(workdir, tmp_path):
    """The run as it was in the middle of its last stage."""
    again = tmp_path / "again"
    shutil.copytree(workdir, again)
    for folder in ("checkpoints", "checkpoints.seals"):
        for path in (again / "guided" / folder).glob("4*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return again


def test_a_stage_that_distils_goes_on_from_its_checkpoint_bit_for_bit(workdir, interrupted, guided):
    assert train(guided, interrupted) == 0
    assert lines(interrupted)[-2:] == lines(workdir)[-2:]
    assert len(set(lines(workdir))) == 4 and min(lines(workdir)) > 1e-8


def test_a_student_does_not_go_on_with_another_teacher(interrupted, guided, capsys):
    assert train(guided, interrupted, "--config.stages.guided.start.average=False") == 2
    assert "its teacher or adapters of another model than `start` gives now" in capsys.readouterr().err


def test_a_checkpoint_of_a_student_holds_no_teacher(workdir):
    student, plain = workdir / "guided" / "checkpoints" / "4", workdir / "stage1_t2v" / "checkpoints" / "3"
    assert {path.name for path in student.iterdir()} == {path.name for path in plain.iterdir()}


def test_what_the_run_leaves_says_what_it_was_distilled_for_and_refuses_the_rest(workdir):
    told = json.loads((workdir / "model.json").read_text())["distilled"]
    assert told == {"guidance": [1.0, 3.0], "guidance_img": [1.0, 2.0]}
    pipe = osjax.Pipeline.from_checkpoint(workdir, settings={"steps": 2})
    assert pipe.calls(pipe.settings) == 2  # where the teacher takes two an evaluation, or three
    one, three = (pipe(["a red circle"], guidance=g).latents_BTHWC for g in (1.0, 3.0))
    assert np.abs(one - three).max() > 0
    with pytest.raises(UserError, match="distilled for guidance from 1 to 3, not 3.5"):
        pipe(["a red circle"], guidance=3.5)


def test_a_student_of_few_steps_is_told_what_its_teacher_is_and_how_many(config):
    made = run.of_config(load(config, {"workdir": "x"}))
    told = distilled_of(made, made.stages["few"])
    assert told == Distilled((1.0, 3.0), (1.0, 2.0), 2)
    assert of_json(json.loads(json.dumps(told.to_json()))) == told
    assert distilled_of(made, made.stages["stage1_t2v"]) is None


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"guidance": 3.5}, "distilled for guidance from 1 to 3, not 3.5"),
        ({"guidance": 0.5}, "not 0.5"),
        ({"guidance_img": 2.5, "mode": "i2v_head"}, "guidance_img from 1 to 2, not 2.5"),
        ({"steps": 20}, "distilled for 2 steps, not 20"),
        ({"solver": "unipc"}, "takes the solver euler"),
        ({"schedule": "measured"}, "the schedule shifted alone"),
        ({"negative": "blurry"}, "leave negative out"),
    ],
)
def test_what_a_distilled_model_did_not_learn_is_refused(changes, says):
    learned, settings = Distilled((1.0, 3.0), (1.0, 2.0), 2), SampleSettings(steps=2, guidance=2.0, guidance_img=2.5)
    learned.check(settings)  # without a given frame nothing reads the scale on it
    with pytest.raises(UserError, match=says):
        learned.check(settings.changed(**changes))


@pytest.mark.parametrize(
    "damage", [{"guidance": [3, 1]}, {"guidance": "x"}, {"guidance": [1]}, {"steps": 0}, {"steps": []}]
)
def test_a_damaged_description_is_none(damage):
    with pytest.raises((ValueError, TypeError)):
        of_json(damage)
    assert of_json({}) is None


@pytest.mark.parametrize(
    "overrides, says",
    [
        (
            {
                "stages.guided.model.guidance_embed": False,
                "stages.guided.model.guidance_img_embed": False,
                "stages.guided.distill.guidance": (1.0, 8.0),
                "stages.guided.distill.guidance_img": (1.0, 4.0),
            },
            "set model.guidance_embed",
        ),
        ({"stages.guided.model.guidance_img_embed": False}, "guidance_img_embed is off"),
        ({"stages.guided.distill.steps": 3}, "distill.what is guidance"),
        ({"stages.guided.distill.what": "banana"}, "what is 'banana': use one of guidance, steps"),
        ({"stages.guided.distill.guidance": (3.0, 1.0)}, "lowest and the highest"),
        ({"stages.stage1_t2v.distill.what": "steps"}, "starts from: give start.stage"),
        ({"stages.stage1_t2v.distill.steps": 3}, "distill.what is empty"),
        ({"stages.guided.lora.rank": 2}, "which adapters are not"),
        ({"stages.few.distill.inner": 0}, "must be 1 or more"),
    ],
)
def test_keys_of_distillation_that_say_nothing_are_refused(config, overrides, says):
    with pytest.raises(UserError, match=says):
        run.of_config(load(config, {"workdir": "x", **overrides}))
