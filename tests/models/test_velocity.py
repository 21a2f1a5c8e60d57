"""The contract of video models: another family trains and samples without an edit outside its folder."""

import inspect
from dataclasses import dataclass, replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models
from osjax.errors import UserError
from osjax.models import velocity, video_flops
from osjax.models.mmdit import patch
from osjax.ops import flops
from osjax.parallel import mesh, sharding
from osjax.sampling.denoise import Denoiser
from osjax.sampling.inputs import Inputs
from osjax.sampling.settings import SampleSettings
from osjax.training import diffusion
from osjax.types import LatentBatch

TINY = {"in_channels": 16, "vec_in_dim": 8, "context_in_dim": 12, "hidden_size": 32, "num_heads": 2}
TINY |= {"depth": 2, "depth_single_blocks": 3, "axes_dim": (4, 6, 6), "patch_size": 2}
CFG = models.config("mmdit", **TINY)


def batch(T=3, H=8, W=6, C=4, B=2, M=7):
    keys = jax.random.split(jax.random.key(1), 4)
    shapes = (B, T, H, W, C), (B, M, 12), (B, 8), (B, T, H, W, C + 1)
    return LatentBatch(*(jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)))


@dataclass(frozen=True)
class PixelConfig:
    """Of a model that works on latents as they are, one token a latent pixel, and takes no condition."""

    channels: int = 4

    @property
    def inputs(self):
        return velocity.VideoInputs(self.channels, 1, 12, 8, condition=False, guidance=False)

    def check_latent(self, T, H, W, C):
        if self.channels != C:
            raise UserError(f"channels {self.channels} must be {C}")


class Pixels(nn.Module):
    """velocity = w x + t + mean(text); latents stay latents."""

    cfg: PixelConfig

    @property
    def inputs(self):
        return self.cfg.inputs

    def check_latent(self, *size):
        self.cfg.check_latent(*size)

    def pack(self, latents_BTHWC):
        return latents_BTHWC

    def unpack(self, x, size):
        assert x.shape[1:4] == size
        return x

    @nn.compact
    def velocity(self, x, size, t_B, txt_BMC, vec_BC, cond_BTHWC=None, strength_B=None):
        assert cond_BTHWC is None and strength_B is None
        told_B = t_B + txt_BMC.mean((1, 2)) + vec_BC.mean(1)
        return self.param("w", nn.initializers.ones, ()) * x + told_B[:, None, None, None, None]


def test_a_model_of_another_kind_trains_and_samples_by_the_contract_alone():
    module, params = Pixels(PixelConfig()), {"w": jnp.float32(1.0)}
    given = batch()._replace(cond_BTHWC=None)
    noise, t_B = jnp.ones_like(given.latents_BTHWC), jnp.array([0.25, 0.5])
    told_B = t_B + given.txt_BMC.mean((1, 2)) + given.y_vec_BC.mean(1)
    x_t = (1 - t_B).reshape(-1, 1, 1, 1, 1) * given.latents_BTHWC + t_B.reshape(-1, 1, 1, 1, 1) * noise
    want = jnp.mean((x_t + told_B.reshape(-1, 1, 1, 1, 1) - (noise - given.latents_BTHWC)) ** 2)
    got = diffusion.loss(module, params, given, noise, t_B)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert abs(diffusion.loss(module, params, given, noise, t_B + 0.1) - want) > 1e-2

    text = jnp.stack([given.txt_BMC, 0 * given.txt_BMC]), jnp.stack([given.y_vec_BC, 0 * given.y_vec_BC])
    settings = SampleSettings(frames=9, steps=2, guidance=1.0)
    made = Denoiser(module)(params, noise + 0, Inputs(*text), settings).x_BTHWC
    assert made.shape == noise.shape and np.isfinite(made).all()
    other = Denoiser(module)({"w": jnp.float32(0.5)}, noise + 0, Inputs(*text), settings).x_BTHWC
    assert np.abs(made - other).max() > 1e-2
    with pytest.raises(UserError, match="channels 4 must be 5"):
        Denoiser(module)(params, jnp.ones((1, 3, 8, 6, 5)), Inputs(*text), settings)
    with pytest.raises(UserError, match="leave reuse first_block out"):
        Denoiser(module)(params, noise + 0, Inputs(*text), settings.changed(reuse="first_block"))


def promises(cls) -> dict[str, object]:
    """Public members of a class, methods by their parameters' names."""
    members = {name: getattr(cls, name) for name in vars(cls) if name[0] != "_" and name != "apply"}
    return {name: [*inspect.signature(m).parameters] if callable(m) else type(m) for name, m in members.items()}


@pytest.mark.parametrize("family", models.VIDEO_MODELS)
def test_every_video_model_has_the_members_of_the_contract(family):
    cfg = models.config(family)
    of_module, of_config = promises(type(models.build(cfg))), promises(type(cfg))
    missing = {name for name, says in promises(velocity.VideoModel).items() if of_module.get(name) != says} - {"cfg"}
    assert not missing and models.build(cfg).cfg == cfg
    assert not {name for name, says in promises(velocity.VideoConfig).items() if of_config.get(name) != says}
    assert "check_attention" in promises(velocity.VideoModel) and "check_attention" not in promises(Pixels)


def test_velocity_of_a_batch_is_the_model_called_with_packed_latents_and_positions():
    module, params = models.build(CFG), nn.unbox(models.init_params(CFG, jax.random.key(0)))
    params = jax.tree.map(lambda x: x + 0.02, params)  # the last layer starts at zero
    given, t_B = batch(), jnp.array([0.25, 0.5])
    ids = patch.img_ids(2, 3, 8, 6, 2), patch.txt_ids(2, 7)
    img, cond = patch.pack(given.latents_BTHWC, 2), patch.pack(given.cond_BTHWC, 2)
    want = module.apply({"params": params}, img, ids[0], given.txt_BMC, ids[1], t_B, given.y_vec_BC, cond)
    got = velocity.of_batch(module, params, given, t_B)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(module.unpack(module.pack(given.latents_BTHWC), (3, 8, 6)), given.latents_BTHWC)
    assert np.abs(velocity.of_batch(module, params, given, t_B + 0.1) - want).max() > 0


@pytest.mark.parametrize(
    ("latent", "says"),
    [((3, 8, 6, 5), "in_channels 16 .* 5 latent channels .* set it to 20"), ((3, 8, 5, 4), "8x5 cannot be cut")],
)
def test_a_latent_that_does_not_fit_is_refused_in_the_words_of_the_config(latent, says):
    module = models.build(CFG)
    module.check_latent(3, 8, 6, 4)
    for asked in (CFG, module):
        with pytest.raises(UserError, match=says):
            asked.check_latent(*latent)


def test_attention_that_cannot_run_on_a_mesh_is_refused():
    attention = replace(CFG, attention="ulysses", attention_kernel="dense")
    with sharding.under(mesh.make(1, 1, 2, 1, jax.devices()[:2])):
        models.build(attention).check_attention()
    with (
        sharding.under(mesh.make(1, 1, 4, 1, jax.devices()[:4])),
        pytest.raises(UserError, match="cannot split 2 heads"),
    ):
        models.build(attention).check_attention()


def test_shapes_of_a_batch_are_those_that_the_model_takes():
    made = velocity.batch_of(CFG, (3, 8, 6, 4), 2, 7, None)
    assert [x.shape for x in made if x is not None] == [x.shape for x in batch() if x is not None]
    told = velocity.batch_of(replace(CFG, guidance_embed=True), (3, 8, 6, 4), 2, 7, None)
    assert made.strength_B is None and told.strength_B.shape == (2,)
    assert velocity.batch_of(replace(CFG, cond_embed=False), (3, 8, 6, 4), 2, 7, None).cond_BTHWC is None


def test_flops_of_three_small_videos_give_those_of_any():
    shapes = velocity.batch_of(CFG, (3, 8, 6, 4), 5, 7, None)
    params = nn.unbox(models.abstract_params(CFG))
    times = jax.ShapeDtypeStruct((5,), jnp.float32)
    traced = flops.of_program(partial(velocity.of_batch, models.build(CFG)), params, shapes, times)
    assert video_flops.forward_flops(CFG, shapes) == traced
    again = replace(CFG, attention="flash", remat="full", remat_blocks=(1, 1))
    assert video_flops.forward_flops(again, shapes) == traced
    assert video_flops.tokens(CFG, shapes) == 5 * (3 * 4 * 3 + 7)
