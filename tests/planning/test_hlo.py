"""Collectives read off compiled programs: of this machine's eight devices, and in every way that HLO writes groups."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from osjax.parallel import mesh as meshes
from osjax.planning import hlo


@pytest.fixture(scope="module")
def mesh():
    return meshes.make(1, 4, 2, 1)


def test_a_scanned_gather_counts_as_often_as_it_runs(mesh):
    stored, whole = NamedSharding(mesh, PartitionSpec(None, "fsdp")), NamedSharding(mesh, PartitionSpec())

    def run(x, weights):
        def body(x, w):
            return jnp.tanh(x @ jax.lax.with_sharding_constraint(w, whole)), None

        return jax.lax.scan(body, x, weights)[0]

    x = jax.ShapeDtypeStruct((8, 32), jnp.float32, sharding=whole)
    weights = jax.ShapeDtypeStruct((5, 32, 32), jnp.float32, sharding=stored)
    found = hlo.collectives(jax.jit(run).lower(x, weights).compile().as_text(), mesh)
    gathered = [c for c in found if c.kind == "all-gather"]
    assert [(c.axes, c.count) for c in gathered] == [(("fsdp",), 5)]
    assert gathered[0].bytes == 5 * 32 * 32 * 4 * 3 // 4  # each device sends its part three times around


def test_a_sum_over_two_axes_is_sent_twice(mesh):
    split = NamedSharding(mesh, PartitionSpec(("fsdp", "sequence")))
    x = jax.ShapeDtypeStruct((8, 64), jnp.float32, sharding=split)
    total = jax.jit(lambda x: x.sum(0), out_shardings=NamedSharding(mesh, PartitionSpec()))
    (found,) = hlo.collectives(total.lower(x).compile().as_text(), mesh)
    assert (found.kind, found.axes, found.count) == ("all-reduce", ("fsdp", "sequence"), 1)
    assert found.bytes == 2 * 64 * 4 * 7 // 8


TEXT = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter.1 (p: f32[64]) -> f32[16] {
  %r = f32[64]{0} all-reduce(%p), replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
}

%body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %f = f32[16] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
  %g = f32[64]{0} all-gather(%f), replica_groups=mesh['a'=4,'b'=2] {'a'}, dimensions={0}
}

%condition (p: (s32[], f32[64])) -> pred[] {
  %n = s32[]{:T(128)} constant(7)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p: f32[64]) -> f32[64] {
  %loop = (s32[], f32[64]) while(%t), condition=%condition, body=%body
  %s = (f32[32]{0}, f32[64]{0}) all-gather-start(%q), replica_groups=[4,2]<=[8], dimensions={0}
  %t = bf16[4,32]{1,0} all-to-all(%u), replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}
  %c = f32[10]{0} collective-permute(%v), source_target_pairs={{0,0},{1,0},{2,3}}
}
"""


def test_every_way_of_writing_groups_is_read(mesh):
    found = {(c.kind, c.axes): (c.count, c.bytes) for c in hlo.collectives(TEXT, mesh)}
    assert found == {
        ("reduce-scatter", ("fsdp",)): (7, 7 * 64 * 4 * 3 // 4),
        ("all-gather", ("fsdp",)): (7, 7 * 64 * 4 * 3 // 4),
        ("all-gather", ("sequence",)): (1, 64 * 4 // 2),
        ("all-to-all", ("fsdp",)): (1, 4 * 32 * 2 * 3 // 4),
        ("collective-permute", ("sequence",)): (1, 40),
    }
    known = TEXT.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}')
    assert {c.count for c in hlo.collectives(known, mesh) if c.axes == ("fsdp",)} == {3, 1}
    assert np.prod(mesh.devices.shape) == 8


STARTED = """
ENTRY %main (p: f32[64]) -> f32[64] {
  %a = f32[64]{0} all-reduce-start(%p), replica_groups=mesh['axis_0'=1,'axis_1'=2,'axis_2'=4], GIVEN {'axis_1'}
  %r = ((f32[8,4]{1,0}, f32[4]{0}), (f32[2,4]{1,0}, f32[1]{0})) reduce-scatter-start(%p, %q), GROUPS {'axis_2'}
  %g = ((f32[16]{0}, f32[4]{0}), (f32[64]{0}, f32[16]{0})) all-gather-start(%p, %q), GROUPS {'axis_2'}
  %c = (f32[10]{0}, f32[10]{0}, u32[]) collective-permute-start(%v), source_target_pairs={{0,0},{1,0},{2,3}}
}
"""


def test_operations_that_are_started_count_their_whole_arrays_once(mesh):
    """As GPUs write them: several arrays at a time, operands beside results, groups by a transposed list of devices."""
    given = "device_ids=([4,2]T(1,0))"
    text = STARTED.replace("GROUPS", "replica_groups=mesh['axis_0'=1,'axis_1'=2,'axis_2'=4], GIVEN")
    found = {(c.kind, c.axes): (c.count, c.bytes) for c in hlo.collectives(text.replace("GIVEN", given), mesh)}
    assert found == {
        ("all-reduce", ("sequence",)): (1, 2 * 64 * 4 // 2),
        ("reduce-scatter", ("fsdp",)): (1, (8 * 4 + 4) * 4 * 3 // 4),
        ("all-gather", ("fsdp",)): (1, (64 + 16) * 4 * 3 // 4),
        ("collective-permute", ("sequence",)): (1, 40),
    }
    in_order = hlo.collectives(text.replace(", GIVEN", ""), mesh)  # devices 0 and 4 make a group of 'axis_1'
    assert {c.axes for c in in_order if c.kind == "all-reduce"} == {("fsdp",)}
