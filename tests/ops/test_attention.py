"""Every attention equals the dense oracle, forward and gradients, and says so when it cannot run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.ops.attention import attend
from osjax.parallel import mesh, sharding
from tests.golden import relative_error

B, D = 2, 8


def sequence(count, tensor=1):
    return mesh.make(data=-1, sequence=count, tensor=tensor)


def inputs(S, heads, dtype="float32"):
    """q, k, v and a cotangent (B, S, h, d)."""
    keys = jax.random.split(jax.random.key(0), 4)
    return [2 * jax.random.normal(key, (B, S, heads, D)).astype(dtype) for key in keys]


def run(grid, impl, S=24, heads=4, dtype="float32", valid=None, shared=0):
    """Output and gradients of q, k and v; the first `shared` tokens are held whole by every device."""
    q, k, v, cotangent = inputs(S, heads, dtype)
    real = np.ones(S, bool) if valid is None else np.concatenate([np.ones(shared, bool), valid])

    def loss(q, k, v):
        first, rest = zip(*((x[:, :shared], x[:, shared:]) for x in (q, k, v)), strict=True)
        out = attend(*rest, impl=impl, kernel="dense", valid=valid, shared=first if shared else None)
        out = jnp.concatenate(out[::-1], 1) if shared else out
        out = out * real.astype(out.dtype)[None, :, None, None]
        return (out * cotangent).sum(dtype=jnp.float32), out

    value_and_grad = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    if grid is None:
        (_, out), grads = value_and_grad(q, k, v)
    else:
        with sharding.under(grid):
            (_, out), grads = value_and_grad(q, k, v)
    return jax.device_get((out, *grads))


def worst(got, want):
    return max(map(relative_error, got, want))


@pytest.mark.parametrize(
    "impl, count, heads",
    [
        ("ring", 2, 3),
        ("ring", 4, 3),
        ("ring", 8, 3),
        ("ulysses", 2, 4),
        ("ulysses", 4, 4),
        ("ulysses", 8, 8),
        ("ulysses_ring", 4, 6),
        ("ulysses_ring", 8, 4),
    ],
)
def test_tokens_split_over_a_mesh_match_dense_forward_and_backward(impl, count, heads):
    want = run(None, "dense", heads=heads)
    got = run(sequence(count), impl, heads=heads)
    assert worst(got, want) < 1e-5
    assert worst(got, run(None, "dense", S=24, heads=heads, valid=np.arange(24) != 5)) > 1e-2  # one key fewer


@pytest.mark.parametrize("impl", ["ring", "ulysses", "ulysses_ring"])
def test_odd_token_counts_are_padded_and_the_padding_is_masked(impl):
    want = run(None, "dense", S=27)
    assert worst(run(sequence(4), impl, S=27), want) < 1e-5
    zero_keys_seen = run(None, "dense", S=28)  # what forgetting the mask comes to: one key more
    assert relative_error(zero_keys_seen[0][:, :27], want[0]) > 1e-2


@pytest.mark.parametrize("impl", ["ring", "ulysses", "ulysses_ring"])
def test_keys_that_are_padding_anywhere_are_left_out(impl):
    valid = np.ones(24, bool)
    valid[[3, 4, 5, 11, 20, 23]] = False  # in the middle of parts, and one part of a ring of eight without any key
    want = run(None, "dense", valid=valid)
    assert worst(run(sequence(8 if impl != "ulysses" else 4), impl, valid=valid), want) < 1e-5
    assert worst(run(None, "dense"), want) > 1e-2


@pytest.mark.parametrize("impl, count", [("ring", 4), ("ulysses", 4), ("ulysses_ring", 8)])
def test_tokens_that_every_device_holds_attend_and_are_attended_to(impl, count):
    valid = np.arange(21) != 20
    want = run(None, "dense", S=26, valid=valid, shared=5)
    assert worst(run(sequence(count), impl, S=26, valid=valid, shared=5), want) < 1e-5
    assert worst(run(None, "dense", S=26, valid=np.arange(21) != 3, shared=5), want) > 1e-2


def test_heads_may_be_split_over_tensor_as_well():
    want = run(None, "dense", heads=4)
    assert worst(run(sequence(2, tensor=2), "ulysses", heads=4), want) < 1e-5
    assert worst(run(sequence(2, tensor=2), "ring", heads=4), want) < 1e-5


@pytest.mark.parametrize("impl", ["ring", "ulysses"])
def test_bfloat16_stays_within_bfloat16_error(impl):
    exact = run(None, "dense")
    own = worst(run(None, "dense", dtype="bfloat16"), exact)
    error = worst(run(sequence(4), impl, dtype="bfloat16"), exact)
    assert 1e-4 < error < 1.5 * own  # below: it did not run in bfloat16


def test_the_ring_never_holds_all_keys():
    def peak(impl):
        def loss(q, k, v):
            return attend(q, k, v, impl=impl, kernel="dense").sum()

        x = jax.ShapeDtypeStruct((1, 4096, 1, D), jnp.float32)
        with sharding.under(sequence(8)):
            text = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile().as_text()
        return "4096,1,8]" in text or "4096,8]" in text or "1,8,4096]" in text

    assert peak("dense") and not peak("ring")


def test_requests_that_cannot_run_name_one_that_can():
    q, k, v, _ = inputs(24, 6)

    def refused(words, grid=None, **how):
        with pytest.raises(UserError, match=words):
            if grid is None:
                attend(q, k, v, **how)
            else:
                with sharding.under(grid):
                    attend(q, k, v, **how)

    refused("unknown attention 'paged': use one of dense, flash", impl="paged")
    refused('flash attention needs a GPU or a TPU, this is cpu: use "blockwise"', impl="flash")
    refused('"blockwise" needs all tokens on every device, but the mesh has sequence=2', sequence(2), impl="blockwise")
    refused("unknown attention kernel 'fast'", impl="ring", kernel="fast")
    refused("runs over a mesh.*or use", impl="ring", kernel="dense")
    advice = 'cannot split 6 heads over sequence=4: use "ulysses_ring" or "ring"'
    refused(advice, sequence(4), impl="ulysses", kernel="dense")
    refused('nothing to exchange with 3 heads.*use "ring"', sequence(2, tensor=2), impl="ulysses_ring", kernel="dense")
    attend(q, k, v, impl="dense")
    attend(q, k, v, impl="blockwise")
