"""A mode that is not in the table: one row makes it known to training, sampling and features on disk."""

import jax
import numpy as np
import pytest

from osjax.conditioning import build, modes
from osjax.errors import UserError
from osjax.sampling import references
from osjax.sampling.settings import SampleSettings
from tests.conditioning.test_build import conditioned

MIDDLE = modes.Reference("middle_image", 1, at=0.5)


@pytest.fixture
def row(monkeypatch):
    """The table has one row more; it goes again after the test."""
    monkeypatch.setitem(modes.MODES, "i2v_middle", (MIDDLE,))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("time", [4, 8])
@pytest.mark.parametrize("at", [0, 0.25, 0.5, 0.7, 1])
def test_an_image_lies_in_the_latent_frame_that_holds_its_pixel_frame(at, time, causal):
    image = modes.Reference("image", 1, at)
    for T in range(1, 20):
        num_frames = (T - 1) * time + 1 if causal else T * time
        (pixel,) = range(num_frames)[image.pixel_slice(num_frames, causal)]
        (latent,) = range(T)[image.latent_slice(T, causal, time)]
        assert latent == np.repeat(np.arange(T + causal), time)[pixel + causal * (time - 1)]
        assert abs(pixel - at * (num_frames - 1)) < 1


@pytest.mark.parametrize("causal", [True, False])
def test_clips_lie_at_the_ends_and_between(causal):
    def frames(at, T):
        return modes.Reference("clip", 32, at).latent_slice(T, causal)

    length = 8 + causal
    assert frames(0, 18) == slice(0, length) and frames(1, 18) == slice(18 - length, 18)
    assert 0 < frames(0.5, 18).start < 18 - length
    assert frames(0.5, 5) == slice(0, 5)  # all of a clip that is too short for it


def test_the_new_mode_is_drawn_and_given_to_its_own_samples_alone(row):
    video = jax.random.normal(jax.random.key(0), (3, 17, 2, 2, 3))
    names = ("t2v", "i2v_middle", "i2v_tail")
    mode_B = np.array([modes.index(name) for name in names])
    cond = conditioned(video, mode_B, names)
    assert np.asarray(cond[..., 0, 0, 0]).tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_allclose(cond[1, 2, ..., 1:], video[1, 8], rtol=1e-6)
    assert not np.allclose(cond[1, 2, ..., 1:], video[1, 7])
    drawn = build.draw_modes(jax.random.key(0), {"t2v": 1.0, "i2v_middle": 1.0}, 100, T=5, causal=True)
    assert set(np.unique(drawn).tolist()) == {0, modes.index("i2v_middle")}


def test_the_new_mode_can_be_asked_for_in_sampling(row):
    assert SampleSettings(mode="i2v_middle").condition == modes.Mode("i2v_middle", (MIDDLE,))
    clip = np.arange(9)[:, None, None, None] * np.ones((1, 2, 2, 3))
    assert references.cut(MIDDLE, (clip,), causal=True)[0, 0, 0, 0] == 4
    assert references.cut(MIDDLE, (clip[:1],), causal=True)[0, 0, 0, 0] == 0  # an image


def test_without_its_row_the_mode_is_unknown():
    with pytest.raises(UserError, match="unknown condition mode 'i2v_middle'"):
        modes.usable_weights({"i2v_middle": 1.0}, 5, causal=True)
    with pytest.raises(UserError, match="unknown condition mode 'i2v_middle'"):
        SampleSettings(mode="i2v_middle")


def test_a_place_outside_the_clip_is_a_user_error():
    with pytest.raises(UserError, match="from 0, the head, to 1, the tail"):
        modes.Reference("late", 1, at=1.5)
