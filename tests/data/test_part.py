"""Some of a data set's records: a share is split off for evaluation, the same in every run."""

import numpy as np
import pytest

from osjax.data import dataset, part
from osjax.errors import UserError
from tests import tiny_release


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("part")
    return dataset.open_source(tiny_release.data_set(folder / "set", tiny_release.write_clips(folder / "clips", 20)))


@pytest.mark.parametrize(("share", "count"), [(0.05, 1), (0.25, 5), (0.001, 1), (0.999, 19)])
def test_every_clip_trains_or_is_held_out_and_never_both(source, share, count):
    train, held_out = part.split(source, share)
    assert len(held_out) == count and len(train) == 20 - count
    assert sorted([*train.places, *held_out.places]) == list(range(20))
    again = part.split(source, share)[1]
    assert np.array_equal(again.places, held_out.places) and again.identity() == held_out.identity()
    assert train.identity() != held_out.identity()


def test_a_part_has_the_records_and_the_index_of_its_places(source):
    some = part.Part(source, np.array([3, 17]))
    assert [record["path"] for record in some] == [source[3]["path"], source[17]["path"]]
    np.testing.assert_array_equal(some.index(), source.index()[[3, 17]])
    with pytest.raises(IndexError):
        some[2]


def test_one_clip_cannot_be_split(source):
    with pytest.raises(UserError, match="one clip cannot be split"):
        part.split(part.Part(source, np.array([3])), 0.5)
