"""Memory by the compiler's analysis."""

import jax
import numpy as np

from osjax.parallel import mesh
from osjax.sampling import memory
from osjax.sampling.placement import size_of
from tests.sampling import tiny


def test_the_table_follows_weights_sizes_and_offload():
    pipe = tiny.pipeline()
    found = memory.measure(pipe, tiny.SETTINGS.changed(mode="i2v_loop"))
    assert [p.name for p in found] == ["encode head_image", "encode tail_image", "denoise", "decode"]
    denoise, decode = found[2:]
    assert denoise.weights == sum(np.prod(x.shape) * 4 for x in jax.tree.leaves(tiny.parts()[1]))
    assert memory.together(found) == denoise.weights + decode.weights + max(p.work for p in found)
    assert memory.offloaded(found) == max(p.peak for p in found) < memory.together(found)
    larger = memory.measure(pipe, tiny.SETTINGS.changed(height=64, width=64))
    assert [p.name for p in larger] == ["denoise", "decode"]
    assert larger[0].work > denoise.work and larger[1].work > 3 * decode.work
    text = memory.table(found, "title")
    assert text.count("\n") == 9 and "denoise" in text


def test_a_mesh_divides_the_weights():
    alone, spread = tiny.pipeline(), tiny.pipeline(mesh=mesh.make(data=1, fsdp=4, tensor=2))
    assert size_of(spread._params.shapes()) < size_of(alone._params.shapes()) / 3
    (denoise, _) = memory.measure(spread, tiny.SETTINGS)
    assert denoise.weights == size_of(spread._params.shapes())
    with spread._params.on_device() as params:
        shards = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(params))
    assert shards == denoise.weights
