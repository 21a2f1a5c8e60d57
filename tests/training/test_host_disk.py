"""Checkpoints on a host's own disk are whole or not there, and nothing that changed since is taken."""

import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from osjax.training import host_disk
from osjax.training.host_disk import HostDisk
from osjax.training.local_tier import LocalTier
from osjax.training.state import TrainState
from tests.training import tiny


def state(value=0.0):
    """Split, replicated, bfloat16 and scalar arrays on four devices."""
    mesh = tiny.mesh_of(2, 2, 1, 1)
    split, same = (NamedSharding(mesh, spec) for spec in (PartitionSpec("fsdp"), PartitionSpec()))
    params = {"w": jax.device_put(jnp.arange(8.0).reshape(4, 2) + value, split)}
    ema = {"w": jax.device_put(jnp.full((3,), value, jnp.bfloat16), same)}
    step = jax.device_put(jnp.int32(value), same)
    return TrainState(step, jax.device_put(jnp.int32(0), same), params, (), ema)


def shapes(now):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), now)


@pytest.fixture
def stage(tmp_path):
    """The tier of a stage with steps 3, 5 and 7 behind it, and its folder."""
    tier = LocalTier(HostDisk(tmp_path / "stage", 0))
    for step in (3, 5, 7):
        tier.save(step, state(step), {"place": step}, {"lr": 0.1})
    tier.wait()
    return tmp_path / "stage"


def restored(folder, like=None, **which):
    return LocalTier(HostDisk(folder, 0)).restore(shapes(like or state()), **{"after": -1, **which})


def test_the_newest_two_stay_and_come_back_with_their_bits_and_shardings(stage):
    assert sorted(path.name for path in (stage / "process-0").iterdir()) == ["5", "7"]
    got = restored(stage)
    assert (got.step, got.data, got.config) == (7, {"place": 7}, {"lr": 0.1})
    assert tiny.same(got.state, state(7)) and not tiny.same(got.state, state(5))
    assert jax.tree.map(lambda x: x.sharding, got.state) == jax.tree.map(lambda x: x.sharding, state(7))
    assert restored(stage, until=6).step == 5
    assert restored(stage, after=7) is None


def test_what_the_device_does_next_is_not_in_a_copy(tmp_path):
    tier, now = LocalTier(HostDisk(tmp_path, 0)), state(1)
    add = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    tier.save(1, now, None, {})
    for _ in range(3):
        now = add(now)
    jax.block_until_ready(now)
    tier.wait()
    assert tiny.same(restored(tmp_path).state, state(1))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("name", [host_disk.ARRAYS, host_disk.ABOUT])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_step_is_removed_loudly_and_the_one_before_taken(name, damage, stage, caplog):
    damage(stage / "process-0" / "7" / name)
    got = restored(stage)
    assert got.step == 5 and tiny.same(got.state, state(5))
    assert "is damaged and removed" in caplog.text and not (stage / "process-0" / "7").exists()


def test_a_half_written_step_does_not_count_and_goes_when_the_folder_is_opened(stage):
    shutil.copytree(stage / "process-0" / "7", stage / "process-0" / "9.part")
    assert restored(stage).step == 7
    assert not (stage / "process-0" / "9.part").exists()


def test_another_model_is_not_restored_and_it_is_said(stage, caplog):
    other = state().replace(ema={"w": jnp.zeros(5)})
    other = jax.device_put(other, jax.tree.map(lambda _: NamedSharding(tiny.single(), PartitionSpec()), other))
    assert restored(stage, like=other) is None and "of another model" in caplog.text


def test_parts_that_another_process_left_on_this_disk_count_too(stage):
    (stage / "process-0").rename(stage / "process-3")
    assert restored(stage).step == 7


def test_what_came_after_the_step_that_a_run_goes_on_from_is_forgotten(stage):
    LocalTier(HostDisk(stage, 0)).forget_after(5)
    assert restored(stage).step == 5


def test_a_full_disk_costs_a_warning_and_leaves_nothing_half_made(disk, caplog):
    folder = disk.mount(64) / "stage"
    tier = LocalTier(HostDisk(folder, 0))
    large = state(1).replace(opt_state=jnp.zeros(100_000))
    with caplog.at_level(logging.WARNING):
        for step in (1, 2):
            tier.save(step, large, None, {})
            tier.wait()
    assert caplog.text.count("No space left on device") == 1  # once, not at every step
    assert not list((folder / "process-0").iterdir())
    tier.save(3, state(3), None, {})
    tier.wait()
    assert np.array_equal(restored(folder).state.params["w"], state(3).params["w"])
