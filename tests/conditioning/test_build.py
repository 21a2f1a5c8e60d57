import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.conditioning import build, modes
from osjax.errors import UserError
from tests import golden

SAMPLING = golden.read_json("sampling_conditions")


def channels_last(x):
    return np.moveaxis(x, 1, -1)


def references(arrays, mode):
    """Of the two references of each sample, the last one gives the tail image and the first one all else."""
    stacks = [channels_last(np.stack([arrays[f"in.ref_{b}_{n}"] for b in range(2)])) for n in range(2)]
    return {r.name: stacks[1 if r == modes.TAIL_IMAGE else 0] for r in mode.references}


def sampling_condition(arrays, name, causal):
    mode = modes.of(name)
    _, C, T, H, W = SAMPLING["latent_shape"]
    return build.condition(build.same_mode(name, 2), references(arrays, mode), (T, H, W, C), causal)


@pytest.mark.parametrize("case", SAMPLING["cases"])
def test_sampling_conditions_equal_the_original(case):
    arrays, _ = golden.read("sampling_conditions")
    want = channels_last(np.concatenate([arrays[f"{case}.masks"], arrays[f"{case}.masked_ref"]], axis=1))
    name, causal = case.removesuffix("_noncausal"), not case.endswith("_noncausal")
    np.testing.assert_array_equal(sampling_condition(arrays, name, causal), want)
    if "v2v" in name:
        assert not np.array_equal(sampling_condition(arrays, name, not causal), want)


def test_modes_mixed_in_a_batch_equal_the_modes_alone_under_jit():
    arrays, _ = golden.read("sampling_conditions")
    _, C, T, H, W = SAMPLING["latent_shape"]
    every = {}
    for mode in modes.every():
        every |= {k: np.concatenate([v] * 4) for k, v in references(arrays, mode).items()}
    make = jax.jit(lambda mode_B: build.condition(mode_B, every, (T, H, W, C), True))
    mixed = make(jnp.arange(8))
    for i, name in enumerate(modes.MODES):
        np.testing.assert_array_equal(mixed[i], sampling_condition(arrays, name, True)[i % 2])
    assert not np.array_equal(mixed, make(jnp.arange(8)[::-1]))


def test_a_single_frame_and_a_missing_reference_are_not_conditioned():
    image = {"head_image": jnp.ones((2, 1, 2, 2, 3))}
    mode_B = build.same_mode("i2v_head", 2)
    assert not np.any(build.condition(mode_B, image, (1, 2, 2, 3), True))
    assert not np.any(build.condition(mode_B, {}, (4, 2, 2, 3), True))
    assert np.any(build.condition(mode_B, image, (4, 2, 2, 3), True))


def test_a_reference_that_is_too_short_is_a_user_error():
    with pytest.raises(UserError, match="head_clip needs 9 latent frames"):
        build.condition(build.same_mode("v2v_head", 1), {"head_clip": jnp.ones((1, 8, 2, 2, 3))}, (19, 2, 2, 3), True)
    with pytest.raises(UserError, match="the clip has 5"):
        build.condition(build.same_mode("v2v_head", 1), {"head_clip": jnp.ones((1, 9, 2, 2, 3))}, (5, 2, 2, 3), True)


def test_modes_are_drawn_by_weight_and_key():
    table = {"t2v": 3.0, "i2v_head": 1.0, "v2v_head": 4.0}
    drawn = build.draw_modes(jax.random.key(0), table, 4000, T=5, causal=True)
    assert set(np.unique(drawn).tolist()) == {0, 1}  # v2v does not fit five latent frames
    assert abs(float(jnp.mean(drawn == 0)) - 0.75) < 0.03
    np.testing.assert_array_equal(drawn, build.draw_modes(jax.random.key(0), table, 4000, T=5, causal=True))
    assert not np.array_equal(drawn, build.draw_modes(jax.random.key(1), table, 4000, T=5, causal=True))
    assert 4 in build.draw_modes(jax.random.key(0), table, 100, T=10, causal=True)


def averaging_encoder(video_BTHWC):
    """A causal encoder that is easy to check: the first frame alone, then the mean of every four frames."""
    first, rest = video_BTHWC[:, :1], video_BTHWC[:, 1:]
    groups = rest.reshape(rest.shape[0], rest.shape[1] // 4, 4, *rest.shape[2:]).mean(axis=2)
    return jnp.concatenate([first, groups], axis=1)


def conditioned(video, mode_B, names):
    """The condition that a batch of videos is given in training, encoded by the averaging encoder."""
    latents = averaging_encoder(video)
    references = build.training_references(averaging_encoder, video, latents, names, causal=True)
    return build.condition(mode_B, references, latents.shape[1:], causal=True)


def test_training_gives_each_sample_the_condition_of_its_mode():
    video = jax.random.normal(jax.random.key(0), (4, 73, 2, 2, 3))
    mode_B = jnp.array([modes.index(n) for n in ("t2v", "i2v_loop", "v2v_head", "v2v_tail_easy")])
    cond, latents = jax.jit(lambda v, m: conditioned(v, m, modes.MODES))(video, mode_B), averaging_encoder(video)
    assert not np.any(cond[0])
    assert np.asarray(cond[1, :, 0, 0, 0]).tolist() == [1] + [0] * 17 + [1]
    np.testing.assert_allclose(cond[1, -1, ..., 1:], video[1, -1], rtol=1e-6)  # an image of its own, not a latent frame
    assert not np.allclose(cond[1, -1, ..., 1:], latents[1, -1])
    np.testing.assert_allclose(cond[2, :9, ..., 1:], averaging_encoder(video[2:3, :33])[0], rtol=1e-5)
    np.testing.assert_allclose(cond[3, -17:, ..., 1:], averaging_encoder(video[3:4, -65:])[0], rtol=1e-5)
    assert not np.any(cond[2, 9:]) and not np.any(cond[3, :-17])
