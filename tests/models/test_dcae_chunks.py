"""The DC-AE in chunks: what a frame sees, and that a stream gives what the whole clip gives."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models
from osjax.errors import UserError
from osjax.models.dcae import stream
from tests import golden
from tests.models.dcae_tiny import run

CHUNK = 4


@cache
def load(chunk_frames: int = CHUNK):
    """(model, params): residual and attention blocks, 2x in time and space; the same params for every chunk size."""
    side = {"width_list": (8, 32), "depth_list": (1, 1), "block_type": ("ResBlock", "EViTS5_GLU")}
    fields = {"latent_channels": 4, "time_compression_ratio": 2, "spatial_compression_ratio": 2}
    sides = {
        "encoder": {**side, "temporal_downsample": (True, False)},
        "decoder": {**side, "temporal_upsample": (True, False)},
    }
    cfg = models.config("dcae", **fields, **sides, chunk_frames=chunk_frames)
    shapes = nn.unbox(models.abstract_params(cfg))
    draw = np.random.default_rng(0).standard_normal

    def one(path, x):  # numpy's numbers: to compile every initialiser takes longer than all else here
        scale = path[-1].key == "scale"
        fan_in = np.prod(x.shape[:-1]) if len(x.shape) > 1 else 100
        return (scale + draw(x.shape) / np.sqrt(fan_in)).astype(np.float32)

    return models.build(cfg), jax.tree_util.tree_map_with_path(one, shapes)


def video(chunks=3):
    return np.random.default_rng(1).uniform(-1, 1, (1, chunks * CHUNK, 4, 4, 3)).astype(np.float32)


@cache
def whole(chunk_frames: int = CHUNK):
    """Latents and reconstruction of a clip of three chunks."""
    model, params = load(chunk_frames)
    z = run(model, params, video(), method="encode")
    return z, run(model, params, z, method="decode")


def pieces(x, size):
    return [x[:, n : n + size] for n in range(0, x.shape[1], size)]


def test_a_stream_gives_what_the_whole_clip_gives():
    model, params = load()
    z, x = whole()
    encoded = list(stream.encode(model, params, pieces(video(), CHUNK)))
    assert [piece.shape for piece in encoded] == [(1, 2, 2, 2, 4)] * 3
    assert golden.relative_error(np.concatenate(encoded, 1), z) < 1e-5
    decoded = list(stream.decode(model, params, pieces(z, CHUNK // 2)))
    assert golden.relative_error(np.concatenate(decoded, 1), x) < 1e-5
    # Chunks by themselves, which know nothing of what came before, are something else.
    alone = [run(model, params, piece, method="encode") for piece in pieces(video(), CHUNK)]
    np.testing.assert_allclose(alone[0], encoded[0], atol=1e-5)
    assert golden.relative_error(np.concatenate(alone, 1), z) > 1e-2


def test_a_frame_knows_nothing_of_later_chunks_and_all_of_its_own():
    model, params = load()
    z, _ = whole()
    for frame, first in ((5, 1), (7, 1), (8, 2)):  # which frame changes, which chunk is the first to know
        changed = video()
        changed[:, frame] *= -1
        other = run(model, params, changed, method="encode")
        by_chunk = np.abs(np.asarray(other - z)).reshape(3, -1).max(1)
        assert not by_chunk[:first].any() and (by_chunk[first:] > 1e-4).all()
    last_of_chunk = video()
    last_of_chunk[:, 7] *= -1
    seen = np.abs(np.asarray(run(model, params, last_of_chunk, method="encode") - z))
    assert seen[:, 2].max() > 1e-4  # the chunk's first latent frame sees its last frame


def test_without_chunks_every_frame_knows_all():
    model, params = load(0)
    z, _ = whole(0)
    assert golden.relative_error(z, whole()[0]) > 1e-2
    changed = video()
    changed[:, -1] *= -1
    assert np.abs(np.asarray(run(model, params, changed, method="encode") - z))[:, 0].max() > 1e-5


def test_one_chunk_and_an_image_are_what_the_model_without_chunks_makes_of_them():
    for x in (video(1), video(1)[:, :1]):
        got, want = (run(*load(chunk), x, method="__call__") for chunk in (CHUNK, 0))
        assert golden.relative_error(got, want) < 1e-5


def test_what_a_stream_keeps_does_not_grow():
    model, params = load()
    kept, sizes, programs = stream._nothing(model, params, video(1), "encode"), [], []
    for piece in pieces(video(6), CHUNK):
        _, kept = stream._step(model, params, kept, jnp.asarray(piece), "encode")
        sizes.append(sum(leaf.nbytes for leaf in jax.tree.leaves(kept)))
        programs.append(stream._step._cache_size())
    assert len(set(sizes)) == 1 and sizes[0] > 0
    assert programs[1] == programs[-1]  # and every chunk runs through one program, so its memory is that of one


def test_gradients_flow_through_chunks():
    model, params = load()
    loss = jax.jit(jax.grad(lambda p: jnp.square(model.apply({"params": p}, video(2), method="encode")).mean()))
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(loss(params)["encoder"]))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"chunk_frames": 4}, "chunk_frames is 4: make it 0 or a multiple of 4 from 8 on"),
        ({"chunk_frames": 10}, "chunk_frames is 10"),
    ],
)
def test_chunks_that_cannot_work_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        models.config("dcae", **fields)


def test_clips_and_streams_of_other_lengths_are_refused():
    model, params = load()
    with pytest.raises(UserError, match="6 frames are no whole chunks of 4: the nearest valid number is [48]"):
        model.latent_shape(6, 8, 8)
    with pytest.raises(UserError, match="6 frames are no whole chunks of 4"):
        model.apply({"params": params}, jnp.zeros((1, 3, 2, 2, 4)), method="decode")
    with pytest.raises(UserError, match="give chunks of 4 frames"):
        list(stream.encode(model, params, [video(2)]))
    with pytest.raises(UserError, match="a stream needs a DC-AE with chunk_frames"):
        stream.encode(*load(0), [])
