"""Meshes over eight devices: axes, filling, and the message when sizes do not fit."""

import os
import subprocess
import sys

import jax
import numpy as np
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


def test_sizes_that_may_give_way_become_the_nearest_that_fit():
    four = jax.devices()[:4]
    assert dict(mesh.make(data=-1, fsdp=8, devices=four[:1], fit=True).shape) == dict.fromkeys(mesh.AXES, 1)
    assert dict(mesh.make(data=1, fsdp=3, sequence=2, fit=True).shape) == dict(data=2, fsdp=2, sequence=2, tensor=1)
    fitting = dict(data=1, fsdp=2, sequence=2, tensor=1)
    assert dict(mesh.make(**fitting, devices=four, fit=True).shape) == fitting
    assert dict(mesh.absent(fsdp=8, count=6, fit=True).shape) == dict(data=1, fsdp=6, sequence=1, tensor=1)


@pytest.mark.parametrize("sizes", [dict(data=-1, fsdp=-1), dict(data=0), dict(data=8, tensor=-2)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(UserError, match="is not valid"):
        mesh.make(**sizes)


class Device:
    """What arranging reads of a device."""

    platform = "tpu"
    device_kind = "TPU v5 lite"
    core_on_chip = 0

    def __init__(self, index, slices, a_side=2):
        per_slice = 8 // slices
        self.id, self.slice_index, self.process_index = index, index // per_slice, index // per_slice
        at = index % per_slice
        self.coords = (at % a_side, at // a_side, 0)


def arranged(slices, *sizes):
    """Which slice the device at every place of the mesh belongs to."""
    grid = mesh.arrange(sizes, [Device(index, slices) for index in range(8)])
    assert grid.shape == sizes and len({device.id for device in grid.flat}) == 8
    return np.vectorize(lambda device: device.slice_index)(grid)


def test_slices_split_data_first_and_then_fsdp():
    over_data = arranged(2, 2, 2, 2, 1)
    assert (over_data[0] == 0).all() and (over_data[1] == 1).all()
    over_fsdp = arranged(2, 1, 4, 2, 1)
    assert (over_fsdp[:, :2] == 0).all() and (over_fsdp[:, 2:] == 1).all()
    over_both = arranged(4, 2, 2, 2, 1)
    assert all(len(np.unique(over_both[i, j])) == 1 for i in range(2) for j in range(2))
    assert len(np.unique(over_both)) == 4


@pytest.mark.parametrize(
    "sizes, nearest",
    [
        ((1, 1, 8, 1), "data=2, fsdp=1, sequence=4, tensor=1"),
        ((1, 1, 4, 2), "data=2, fsdp=1, sequence=2, tensor=2"),
        ((1, 2, 1, 4), None),
    ],
)
def test_sequence_and_tensor_stay_inside_a_slice_of_tpus(sizes, nearest):
    if nearest is None:
        assert len(np.unique(arranged(2, *sizes)[0, 0])) == 1
        return
    with pytest.raises(UserError, match=f"between slices of 4 devices.*the nearest is {nearest}"):
        arranged(2, *sizes)
    arranged(2, *(int(part.split("=")[1]) for part in nearest.split(", ")))


@pytest.mark.parametrize(
    "arguments, variables, words",
    [
        ((), {}, "no cluster found"),
        (("host0", 2, 0), {}, "lacks its port"),
        (("host0:8476", 2, 2), {}, "process 2 of 2 does not exist"),
        ((), {"JAX_COORDINATOR_ADDRESS": "host0:1", "JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'"),
        (("localhost:1", 2), {}, "no cluster found"),
    ],
)
def test_processes_that_cannot_meet_are_told_what_to_give(arguments, variables, words):
    # In a process of its own: joining must come before any other call of jax.
    code = f"from osjax.parallel import mesh; mesh.initialize(*{arguments!r})"
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert "osjax.errors.UserError" in result.stderr and words in result.stderr.splitlines()[-1], result.stderr
