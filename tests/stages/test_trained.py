"""What a run trained on, by its config and its data set."""

import pytest

from osjax.parts import config
from osjax.parts import run as runs
from osjax.parts.data import ChooseKeys
from osjax.parts.groups import group
from osjax.sampling import workdir
from osjax.sampling.trained import Trained
from osjax.stages import trained
from osjax.stages.data import OwnData
from tests import tiny_release

SIZES = ((8, 32, 32),)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """(folder, config file of a whole model that begins from nothing, data set of three clips)"""
    folder = tmp_path_factory.mktemp("here")
    tiny_release.write_weights(folder)
    lines = [line for line in tiny_release.FINETUNE.splitlines() if "cfg.lora" not in line]
    text = "\n".join(lines).replace("lora_t2v_256", "full_t2v_256")
    (folder / "full.py").write_text(text.replace("ckpts/", f"{folder}/"))
    return folder, folder / "full.py", tiny_release.data_set(folder / "set", tiny_release.write_clips(folder / "c", 3))


def of(here, start=None, buckets=False, **keys):
    _, path, source = here
    cfg = config.load(path, {"data.source": str(source), "workdir": "w", **keys})
    cfg.start.weights = start
    if buckets:
        cfg.data.choose, cfg.data.buckets = group(ChooseKeys), (("32px", 8, 1.0, 1),)
    run = runs.of_config(cfg)
    return trained.of_run(run, OwnData(run.keys.source, run.keys.clips, run.place.workdir))


def test_a_model_from_nothing_knows_the_words_of_its_captions(here):
    told = of(here)
    captions = [(here[0] / "c" / f"{n:03d}.txt").read_text() for n in range(3)]
    assert set(told.words) == {word for text in captions for word in text.split()} and len(told.words) > 4
    assert told.shapes == SIZES and told.clips == 3 and len(told.data) == 16 and told.trigger == ""


def test_a_model_from_a_file_knows_words_that_nobody_can_tell_and_one_from_a_run_those_of_both(here, tmp_path):
    known = of(here, str(here[0] / "video.safetensors"))
    assert known.words == () and known.clips == 3
    before = tmp_path / "run" / "stage" / "checkpoints"
    before.mkdir(parents=True)
    workdir.save(tmp_path / "run", workdir.Workdir(None, None, trained=Trained(words=("mauve",))))
    told = of(here, str(before))
    assert set(told.words) == {"mauve", *of(here).words}


def test_data_that_is_not_there_any_more_is_left_out(here, tmp_path):
    told = of(here, buckets=True)
    gone = of(here, buckets=True, **{"data.source": str(tmp_path)})
    assert told.clips == 3 and gone == Trained(told.shapes)
