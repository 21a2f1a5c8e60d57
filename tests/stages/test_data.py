"""The data of a stage as its config group asks for them."""

import numpy as np
import pytest

from osjax.curation.probe import probe
from osjax.data import clips, dataset, part
from osjax.errors import UserError
from osjax.parallel import mesh
from osjax.parts import buckets
from osjax.parts.clips import ClipSet
from osjax.parts.data import DataKeys
from osjax.stages import data
from tests.data.test_workers import children

SLOWER = {"state_fps": True, "fps_max": 4.0}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    table = clips.write_clips(folder, clips.specs(16, 0, clips.combinations()), 64, 8, 8)
    return dataset.open_source(dataset.build_clips(probe(table).kept, folder / "set"))


def batches(source, **keys):
    cfg = DataKeys(buckets=(("64px", 4, 1.0, 8),), **keys)
    table = buckets.table(cfg.buckets, cfg.batch_per_device, cfg.fps_max, 8, mesh.make())
    return data.video_batches(source, table, cfg, 3)


def test_workers_of_a_config_read_the_batches_that_its_threads_read(source):
    threads, before = batches(source, workers=0), children()
    rows = [next(threads) for _ in range(3)]
    assert children() == before
    workers = batches(source, workers=2)
    for row in rows:
        np.testing.assert_array_equal(next(workers)["video"], row["video"])
    assert children() - before
    other = batches(source, workers=2, random_start=False)
    assert not all(np.array_equal(next(other)["video"], row["video"]) for row in rows)


def test_processes_read_data_sets_and_threads_what_the_run_drew_itself_unless_a_config_says_otherwise(
    source, tmp_path, caplog
):
    caplog.set_level("INFO")
    assert data.readers(DataKeys(threads=3), source).workers == 3
    assert "3 processes read the clips, as a data set may hold files" in caplog.text
    assert data.readers(DataKeys(threads=3, workers=0), source).workers == 0
    assert data.readers(DataKeys(held_out_share=0.5), part.split(source, 0.5)[1]).workers == 2
    drawn = data.OwnData(None, ClipSet(train=2, held_out=1, frames=2, size=32), tmp_path)
    assert data.readers(DataKeys(), drawn.open("train")).workers == 0
    assert data.readers(DataKeys(workers=1), drawn.open("train")).workers == 1
    # A data set that is copied into the place of the drawn one is the run's own, one that is named is not.
    assert data.readers(DataKeys(), data.training_source(DataKeys(source=str(drawn.path("train"))), drawn)).workers == 2


def test_captions_state_the_rate_that_their_clips_train_at_where_a_config_asks_for_it(source):
    plain, stated, slower = (next(batches(source, **keys))["text"] for keys in ({}, {"state_fps": True}, SLOWER))
    assert list(stated) == [f"{text} 8 FPS." for text in plain]
    assert list(slower) == [text.replace("8 FPS", "4 FPS") for text in stated] and list(plain) != list(stated)


@pytest.mark.parametrize("keys", [{"workers": -1}, {"threads": 0}, {"timeout_s": 0.0}])
def test_readers_that_read_nothing_are_refused(source, keys):
    with pytest.raises(UserError, match=next(iter(keys))) as refused:
        batches(source, **keys)
    assert refused.value.status == 2


def test_held_out_clips_of_no_batch_are_counted_with_why(source, tmp_path, caplog):
    table = buckets.table((("64px", 8, 1.0, 8),), False, 24.0, 8, mesh.make())
    data.warn_left_out(source, table, DataKeys(), 3, "held-out")
    assert caplog.text == ""
    small = clips.write_clips(tmp_path / "small", clips.specs(3, 1, clips.combinations()), 32, 8, 8)
    large = clips.write_clips(tmp_path / "large", clips.specs(16, 1, clips.combinations()), 64, 8, 8)
    both = dataset.open_source(dataset.build_clips([*probe(small).kept, *probe(large).kept], tmp_path / "set"))
    data.plan(both, table, 3)
    assert caplog.text == ""  # the table of training clips tells of them
    data.warn_left_out(both, table, DataKeys(), 3, "held-out")
    assert "3 of 19 held-out clips are left out: 3 have fewer than 80% of the pixels of 64px" in caplog.text
