"""Differences of two tables of shapes, in words."""

from osjax.models import shapes

THERE = {("a", "kernel"): (2, 3), ("a", "bias"): (3,), ("old",): ()}
MODEL = {("a", "kernel"): (2, 4), ("a", "bias"): (3,), ("new", "scale"): (5,)}


def test_each_leaf_that_differs_is_told_by_name_and_no_other():
    assert shapes.differences(THERE, MODEL) == [
        "a/kernel is (2, 3) there and (2, 4) in the model",
        "new/scale is nothing there and (5,) in the model",
        "old is () there and nothing in the model",
    ]
    assert shapes.differences(MODEL, MODEL) == []


def test_what_fits_can_be_told_from_outside():
    def as_long(there, model):
        return there is not None and model is not None and len(there) == len(model)

    assert [line.split()[0] for line in shapes.differences(THERE, MODEL, as_long)] == ["new/scale", "old"]


def test_a_long_list_is_cut_with_the_number_of_the_rest():
    assert shapes.listed(["a", "b", "c"], 2) == "a; b; and 1 more"
    assert shapes.listed(["a", "b", "c"], 3) == "a; b; c"
