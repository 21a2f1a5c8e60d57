"""The MMDiT over a mesh equals one device: any attention, odd token counts, text split or whole, weights in shards."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models
from osjax.errors import UserError
from osjax.models.mmdit.tokens import TokenLayout
from osjax.parallel import mesh, sharding
from tests.golden import relative_error

FIELDS = dict(
    in_channels=8,
    vec_in_dim=16,
    context_in_dim=16,
    hidden_size=64,
    num_heads=4,
    depth=1,
    depth_single_blocks=2,
    axes_dim=(4, 6, 6),
    patch_size=1,
    cond_embed=False,
)


def config(**changes):
    return models.config("mmdit", **{**FIELDS, **changes})


def params():
    shapes = nn.unbox(models.abstract_params(config()))
    r = np.random.default_rng(0)
    return jax.tree.map(lambda s: 0.2 * r.standard_normal(s.shape).astype(np.float32), shapes)


def inputs(N, M, B=2):
    r = np.random.default_rng(1)
    img, ids, txt, vec = (r.standard_normal(s).astype(np.float32) for s in ((B, N, 8), (B, N, 3), (B, M, 16), (B, 16)))
    return img, ids, txt, np.zeros((B, M, 3), np.float32), np.full(B, 0.3, np.float32), vec


def run(grid, arguments, **changes):
    """Velocity and the gradients of all parameters, on `grid` or on one device."""
    model = models.build(config(**changes))

    def loss(params):
        velocity = model.apply({"params": params}, *arguments)
        return jnp.square(velocity).mean(), velocity

    value_and_grad = jax.jit(jax.value_and_grad(loss, has_aux=True))
    if grid is None:
        (_, velocity), grads = value_and_grad(params())
    else:
        placed = jax.device_put(params(), sharding.of_boxed(models.abstract_params(model.cfg), grid))
        with sharding.under(grid):
            (_, velocity), grads = value_and_grad(placed)
    return jax.device_get((velocity, grads))


def worst(got, want):
    return max(map(relative_error, jax.tree.leaves(got), jax.tree.leaves(want)))


@pytest.fixture(scope="module")
def odd():
    arguments = inputs(N=21, M=5)
    return arguments, run(None, arguments)


@pytest.mark.parametrize("text", ["sharded", "replicated"])
@pytest.mark.parametrize(
    "attention, sizes",
    [("dense", (1, 2, 4, 1)), ("ulysses", (1, 2, 4, 1)), ("ring", (1, 1, 4, 2)), ("ulysses_ring", (1, 1, 8, 1))],
)
def test_odd_token_counts_over_a_mesh_equal_one_device(odd, attention, sizes, text):
    arguments, want = odd
    got = run(mesh.make(*sizes), arguments, attention=attention, attention_kernel="dense", text_tokens=text)
    assert worst(got, want) < 1e-4


def test_padding_that_was_attended_to_would_show(odd):
    arguments, want = odd
    img, ids, *rest = arguments
    padded = np.pad(img, ((0, 0), (0, 3), (0, 0))), np.pad(ids, ((0, 0), (0, 3), (0, 0)))
    velocity, _ = run(None, (*padded, *rest))
    assert relative_error(velocity[:, :21], want[0]) > 1e-2


def test_joining_and_parting_text_and_video_are_inverse_and_local():
    layout = TokenLayout(text=5, video=21, shards=4)
    text, video = layout.pad_text(np.arange(5)[None]), layout.pad_video(100 + np.arange(21)[None])
    joined = np.asarray(layout.join(text, video))[0]
    assert [list(part[:2]) for part in joined.reshape(4, -1)] == [[0, 1], [2, 3], [4, 0], [0, 0]]
    assert sorted(joined[layout.valid()]) == [*range(5), *range(100, 121)]
    back = layout.part(joined[None])
    np.testing.assert_array_equal(back[0], text)
    np.testing.assert_array_equal(back[1], video)


def test_joining_moves_nothing_between_devices():
    grid, layout = mesh.make(1, 1, 8), TokenLayout(16, 64, 8)
    rows = jax.NamedSharding(grid, jax.P(None, "sequence"))

    def collectives(join):
        text, video = (jax.ShapeDtypeStruct((1, n, 4), jnp.float32, sharding=rows) for n in (16, 64))
        compiled = jax.jit(join, out_shardings=rows).lower(text, video).compile().as_text()
        return [kind for kind in ("all-gather", "all-to-all", "collective-permute", "all-reduce") if kind in compiled]

    assert not collectives(layout.join)
    assert collectives(lambda text, video: jnp.concatenate([text, video], 1))


def test_kernels_are_gathered_one_block_at_a_time_and_their_gradients_come_back_in_shards():
    grid, cfg = mesh.make(1, 8), config(depth_single_blocks=3)
    model, arguments = models.build(cfg), inputs(16, 8, B=8)
    boxed = models.abstract_params(cfg)
    stored = sharding.of_boxed(boxed, grid)

    def loss(params):
        return jnp.square(model.apply({"params": params}, *arguments)).mean()

    shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), stored)
    with sharding.under(grid):
        text = jax.jit(jax.grad(loss), out_shardings=stored).lower(shapes).compile().as_text()
    assert "f32[3,8,256]" in text and "f32[64,256]" in text  # the stack in shards, and one block's kernel whole
    assert "f32[3,64,256]" not in text  # the stack whole


def test_modulation_moves_its_own_rows_between_devices_not_kernels():
    grid, cfg = mesh.make(2, 4), config()
    model, arguments, boxed = models.build(cfg), inputs(16, 8, B=8), models.abstract_params(cfg)
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), sharding.of_boxed(boxed, grid)
    )
    with sharding.under(grid):
        text = jax.jit(lambda p: model.apply({"params": p}, *arguments)).lower(shapes).compile().as_text()
    assert "[4,384]" in text  # rows of four devices times 6 * 64
    assert "[8,384]" not in text  # of the whole batch
    assert "[64,384]" not in text and "[1,64,384]" not in text  # the kernel


@pytest.mark.parametrize(
    "field, value", [("attention", "paged"), ("text_tokens", "split"), ("grad_reduce", "int8"), ("remat", "some")]
)
def test_choices_that_do_not_exist_are_refused_with_those_that_do(field, value):
    with pytest.raises(UserError, match=f"unknown .*{value!r}: use one of"):
        config(**{field: value})
    with pytest.raises(UserError, match="remat_blocks"):
        config(remat_blocks=(1, 2, 3))
