"""Names of accelerators."""

import pytest

from osjax.errors import UserError
from osjax.planning import targets


@pytest.mark.parametrize(
    "name, devices, topology",
    [
        ("v5p:4x4x8", 128, "v5p:4x4x8"),
        ("v5p-128", 64, "v5p:4x4x4"),  # clouds count the two cores of a v5p chip
        ("v5p-256", 128, "v5p:4x4x8"),
        ("v6e-256", 256, "v6e:16x16"),
        ("v5e:2x4", 8, "v5e:2x4"),
        ("h200x64", 64, "1x8x8"),
        ("h100x4", 4, "1x1x4"),
    ],
)
def test_names_give_devices_and_a_topology(name, devices, topology):
    target = targets.parse(name)
    assert (target.devices, target.topology) == (devices, topology)


@pytest.mark.parametrize(
    "name, says",
    [
        ("v5p", "not understood: give one like"),
        ("v9z:4x4", "unknown accelerator 'v9z': use one of v5e, v5p, v6e"),
        ("v5p:4x4", "slices have 3 sides"),
        ("v5p-96", "no slice"),
        ("h200x12", "come in hosts of 8"),
        ("a100x8", "unknown accelerator .a100.: use one of h100, h200, b200"),
    ],
)
def test_other_names_say_what_to_give(name, says):
    with pytest.raises(UserError, match=says):
        targets.parse(name)


def test_groups_beyond_a_gpu_host_use_the_network():
    gpus, slice_ = targets.parse("h200x64"), targets.parse("v5p-128")
    assert gpus.sends(8) == 450e9 and gpus.sends(16) == 50e9
    assert slice_.sends(64) == slice_.sends(4)
