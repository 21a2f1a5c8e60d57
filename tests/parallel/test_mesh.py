"""Meshes over eight devices: axes, filling, and the message when sizes do not fit."""

import jax
import pytest
from jax.sharding import AxisType

from osjax.errors import UserError
from osjax.parallel import mesh


def test_minus_one_takes_the_devices_that_are_left():
    made = mesh.make(data=-1, fsdp=2, sequence=2)
    assert dict(made.shape) == {"data": 2, "fsdp": 2, "sequence": 2, "tensor": 1}
    assert made.axis_names == mesh.AXES and set(made.axis_types) == {AxisType.Auto}


def test_a_mesh_may_use_some_of_the_devices():
    assert mesh.make(1, 2, 1, 2, devices=jax.devices()[:4]).size == 4


@pytest.mark.parametrize(
    "sizes, nearest",
    [
        (dict(data=3, fsdp=1), "data=8, fsdp=1, sequence=1, tensor=1"),
        (dict(data=1, fsdp=3, sequence=2), "data=2, fsdp=2, sequence=2, tensor=1"),
        (dict(data=-1, tensor=16), "data=1, fsdp=1, sequence=1, tensor=8"),
        (dict(data=-1, sequence=3), "data=4, fsdp=1, sequence=2, tensor=1"),
    ],
)
def test_sizes_that_do_not_fit_are_told_the_nearest_that_do(sizes, nearest):
    with pytest.raises(UserError, match=f"does not fit 8 devices: the nearest is {nearest}"):
        mesh.make(**sizes)
    assert mesh.make(**{k: int(v) for k, v in (part.split("=") for part in nearest.split(", "))}).size == 8


@pytest.mark.parametrize("sizes", [dict(data=-1, fsdp=-1), dict(data=0), dict(data=8, tensor=-2)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(UserError, match="is not valid"):
        mesh.make(**sizes)
