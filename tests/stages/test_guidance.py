"""A model that is told the strength of guidance is told the config's while it trains."""

import shutil

import numpy as np
import pytest

import osjax
from osjax.__main__ import main
from osjax.training import metrics

FLAGS = ["train", "--config=tests/e2e/two_stages.py", "--config.clips.train=16", "--config.compilation_cache="]
TOLD = ["--config.stages.stage1_t2v.steps=8", "--config.stages.stage1_t2v.model.guidance_embed=True"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose model is told 4, the default, and which is finished."""
    workdir = tmp_path_factory.mktemp("told") / "four"
    assert main([*FLAGS, *TOLD, f"--workdir={workdir}"]) == 0
    return workdir


def losses(workdir):
    return [line["loss"] for line in metrics.read(workdir / "metrics.jsonl") if line["stage"] == "stage1_t2v"]


def test_the_strength_that_a_config_gives_reaches_the_model(trained, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    shutil.rmtree(again / "stage1_t2v")
    lines = (again / "metrics.jsonl").read_text().splitlines(keepends=True)
    (again / "metrics.jsonl").write_text("".join(line for line in lines if "stage1_t2v" not in line))
    assert main([*FLAGS, *TOLD, f"--workdir={again}", "--config.stages.stage1_t2v.guidance=40.0"]) == 0
    four, forty = losses(trained), losses(again)
    assert len(four) == len(forty) == 8
    # The last layer and what tells the strength begin at zero: the first loss knows nothing of it, the last one does.
    assert four[0] == forty[0] and four[7] != forty[7]


def test_sampling_tells_it_the_strength_instead_of_guiding(trained):
    pipe = osjax.Pipeline.from_checkpoint(trained, settings={"steps": 2})
    two, nine, again = (pipe(["a red circle"], guidance=g).latents_BTHWC for g in (2.0, 9.0, 2.0))
    np.testing.assert_array_equal(two, again)
    assert np.abs(two - nine).max() > 0
