"""int8 weights in the blocks of the velocity model."""

import jax
import numpy as np

from osjax.parallel import mesh
from osjax.sampling import memory
from tests.golden import relative_error
from tests.sampling import tiny

WIDE = {"hidden_size": 64, "axes_dim": (8, 12, 12), "depth": 2, "depth_single_blocks": 2}


def test_int8_weights_are_smaller_and_almost_as_good():
    plain, small = tiny.pipeline(WIDE), tiny.pipeline(WIDE, int8=True)
    want, got = plain(["a"]).latents_BTHWC, small(["a"]).latents_BTHWC
    assert 1e-5 < relative_error(got, want) < 0.03
    assert relative_error(plain(["a"], seed=1).latents_BTHWC, want) > 0.3
    with small._params.on_device() as params:
        kinds = {path[-1].name for path, x in jax.tree_util.tree_leaves_with_path(params) if x.dtype == np.int8}
        held = sum(x.nbytes for x in jax.tree.leaves(params))
    assert kinds == {"qvalue"}
    before, after = memory.measure(plain, tiny.SETTINGS)[0], memory.measure(small, tiny.SETTINGS)[0]
    assert after.weights == held < 0.4 * before.weights


def test_int8_weights_split_over_a_mesh_and_wait_on_the_host():
    want = tiny.pipeline(WIDE, int8=True)(["a"]).latents_BTHWC
    spread = tiny.pipeline(WIDE, int8=True, offload=True, mesh=mesh.make(data=1, fsdp=2, sequence=2, tensor=2))
    assert relative_error(spread(["a"]).latents_BTHWC, want) < 1e-4
    with spread._params.on_device() as params:
        kernel = params["single_blocks"]["mlp_in"]["kernel"].qvalue
        assert kernel.dtype == np.int8 and kernel.addressable_shards[0].data.size == kernel.size // 8
    assert kernel.is_deleted()
