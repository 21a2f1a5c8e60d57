"""Where arrays lie: shards by name, replication where a size does not divide, and rows of hosts on the mesh."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from osjax.errors import UserError
from osjax.parallel import mesh, rules, sharding
from osjax.parallel.host import to_global
from osjax.planning import hlo
from osjax.types import Axis

pytestmark = pytest.mark.optimised


def init(key, width=16):
    def box(x, *names):
        return nn.LogicallyPartitioned(x, names)

    return {
        "kernel": box(jax.random.normal(key, (width, 24)), Axis.EMBED, Axis.MLP),
        "odd": box(jax.random.normal(key, (width + 2, 6)), Axis.EMBED, Axis.MLP),
        "count": jnp.zeros((), jnp.int32),
    }


def test_sharded_init_gives_the_values_of_one_device_in_shards():
    key, grid = jax.random.key(3), mesh.make(1, 2, 2, 2)
    made = sharding.Init(init, grid, key).make()
    for name, want in nn.unbox(init(key)).items():
        np.testing.assert_array_equal(made[name], want)
    assert made["kernel"].addressable_shards[0].data.shape == (4, 12)
    assert not np.array_equal(made["kernel"], nn.unbox(init(jax.random.key(4)))["kernel"])


def test_a_dimension_that_does_not_divide_is_replicated_and_the_others_are_not():
    found = sharding.of_boxed(jax.eval_shape(init, jax.random.key(0)), mesh.make(1, 2, 2, 2))
    assert found["kernel"].spec == PartitionSpec(("fsdp", "sequence"), "tensor")
    assert found["odd"].spec == PartitionSpec(None, "tensor")  # 18 rows over 4
    assert found["count"].spec == PartitionSpec()


def test_a_parameter_with_an_unknown_name_raises():
    bad = {"w": nn.LogicallyPartitioned(jnp.zeros((2,)), ("nameless",))}
    with pytest.raises(KeyError, match="nameless"):
        sharding.of_boxed(bad, mesh.make(), rules.AUTOENCODER)


def test_rows_of_this_host_become_one_global_array():
    rows = {"x": np.arange(24, dtype=np.float32).reshape(8, 3), "none": None}
    placed = to_global(rows, mesh.make(2, 2, 2))
    np.testing.assert_array_equal(placed["x"], rows["x"])
    assert placed["x"].sharding.spec == PartitionSpec(("data", "fsdp")) and placed["none"] is None
    assert placed["x"].addressable_shards[0].data.shape == (2, 3)


def test_a_batch_that_does_not_divide_names_one_that_does():
    with pytest.raises(UserError, match="batch of 6 does not divide over data \\* fsdp = 4: use a batch of 8"):
        to_global(np.zeros((6, 1), np.float32), mesh.make(2, 2, 2))


def test_constraints_name_axes_of_the_mesh_only_inside():
    grid = mesh.make(1, 2, 4)

    def f(x):
        return nn.with_logical_constraint(x, (Axis.BATCH, Axis.TOKENS))

    def split(x, rules_on):
        if not rules_on:
            return jax.jit(f)(x).sharding.is_fully_replicated
        with sharding.under(grid):
            return jax.jit(f)(x).sharding.is_fully_replicated

    x = jax.device_put(jnp.ones((4, 8)), sharding.replicated(grid))
    assert not split(x, rules_on=True) and split(x, rules_on=False)


def test_a_compiled_step_donates_its_state_and_keeps_its_place():
    grid = mesh.make(1, 2, 2, 2)
    fresh = sharding.Init(partial(init, width=16), grid, jax.random.key(0))
    shardings, state = fresh.shardings, fresh.make()

    def step(state, batch, key):
        return jax.tree.map(lambda x: x + 1, state), {"sum": batch.sum()}

    batch = to_global(np.ones((8,), np.float32), grid)
    run = sharding.jit_step(step, shardings, grid)
    after, metrics = run(state, batch, sharding.random_key(0, grid))
    assert state["kernel"].is_deleted() and not batch.is_deleted()
    assert after["kernel"].sharding == shardings["kernel"] and float(metrics["sum"]) == 8


@pytest.mark.parametrize("shape", [(2, 2, 2), (4, 1, 2), (1, 2, 4)])
def test_gradients_of_kernels_are_summed_over_data_as_shards_alone(shape):
    grid = mesh.make(*shape)
    x = jax.random.normal(jax.random.key(0), (8, 16, 32))
    kernel = jax.random.normal(jax.random.key(1), (32, 64))
    stored = NamedSharding(grid, PartitionSpec(("fsdp", "sequence")))
    rows = NamedSharding(grid, PartitionSpec(("data", "fsdp"), "sequence"))

    def gradient(kernel, x, gather):
        return jax.grad(lambda kernel: jnp.sin(x @ gather(kernel)).sum())(kernel)

    with sharding.under(grid):
        step = jax.jit(partial(gradient, gather=lambda k: sharding.gathered(k, (Axis.EMBED, Axis.MLP))))
        program = step.lower(*map(jax.device_put, (kernel, x), (stored, rows))).compile()
        found = program(*map(jax.device_put, (kernel, x), (stored, rows)))
    np.testing.assert_allclose(found, gradient(kernel, x, lambda k: k), rtol=1e-4, atol=1e-3)
    assert found.sharding.is_equivalent_to(stored, 2)
    over_data = [c for c in hlo.collectives(program.as_text(), grid) if "data" in c.axes]
    assert [c.axes for c in over_data] == [("data",)] * (shape[0] > 1)
    shard = kernel.size * 4 // (shape[1] * shape[2])
    assert sum(c.bytes for c in over_data) == 2 * shard * (shape[0] - 1) // shape[0]
