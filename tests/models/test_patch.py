import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.models.mmdit import patch
from tests import golden


def channels_last(x):
    return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize("case", [0, 1])
def test_packing_gives_the_originals_token_order_and_ids(case):
    arrays, meta = golden.read("sampling_pack_ids")
    size, prompts = meta["cases"][case]["patch"], meta["cases"][case]["prompts"]
    latents = channels_last(arrays[f"{case}.latent"])
    B, T, H, W, _ = latents.shape
    tokens = jax.jit(patch.pack, static_argnums=1)(latents, size)
    np.testing.assert_array_equal(tokens, arrays[f"{case}.tokens"])
    np.testing.assert_array_equal(patch.unpack(tokens, size, T, H, W), latents)
    np.testing.assert_array_equal(patch.img_ids(prompts, T, H, W, size), arrays[f"{case}.img_ids"])
    assert patch.txt_ids(prompts, 4).shape == (prompts, 4, 3) and not np.any(patch.txt_ids(prompts, 4))


def test_channel_order_inside_a_token_is_not_row_column_channel():
    arrays, _ = golden.read("sampling_pack_ids")
    latents = channels_last(arrays["0.latent"])
    B, T, H, W, C = latents.shape
    naive = latents.reshape(B, T, H // 2, 2, W // 2, 2, C).transpose(0, 1, 2, 4, 3, 5, 6).reshape(B, -1, 4 * C)
    assert not np.array_equal(naive, arrays["0.tokens"])


def test_first_token_channels_of_a_condition_are_its_mask():
    cond = jnp.concatenate([jnp.ones((1, 2, 4, 4, 1)), jnp.zeros((1, 2, 4, 4, 3))], axis=-1)
    tokens = patch.pack(cond, 2)
    assert np.all(tokens[..., :4] == 1) and not np.any(tokens[..., 4:])


def test_a_size_that_the_patch_does_not_divide_is_a_user_error():
    with pytest.raises(UserError, match="multiples of 2"):
        patch.pack(jnp.zeros((1, 1, 3, 4, 2)), 2)
    with pytest.raises(ValueError, match="do not hold"):
        patch.unpack(jnp.zeros((1, 5, 8)), 2, 1, 4, 4)
