"""The sampling pipeline: seeds, batches, references, and files that stay in their folder."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from osjax import models
from osjax.conditioning.text import TextEncoder
from osjax.data.video import decode
from osjax.errors import UserError
from osjax.sampling.pipeline import Autoencoder, Pipeline, SampleSettings, to_float, to_uint8
from osjax.sampling.write import file_stem, write_samples

SETTINGS = SampleSettings(frames=8, height=32, width=32, steps=3, guidance=2.0, guidance_img=2.0)


@pytest.fixture(scope="module")
def pipe():
    stages = {"width_list": (8, 8, 16, 32), "block_type": "ResBlock"}
    ae_cfg = models.config(
        "dcae",
        latent_channels=8,
        spatial_compression_ratio=8,
        encoder={**stages, "depth_list": (0, 1, 1, 1), "temporal_downsample": (False, True, True, False)},
        decoder={**stages, "depth_list": (0, 1, 1, 1), "temporal_upsample": (False, True, True, False)},
    )
    cfg = models.config(
        "mmdit",
        in_channels=8,
        vec_in_dim=16,
        context_in_dim=16,
        hidden_size=32,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        axes_dim=(4, 6, 6),
        patch_size=1,
    )

    def params(config):
        made = nn.unbox(jax.jit(lambda key: models.init_params(config, key))(jax.random.key(0)))
        # Fresh models end in zeros; noise makes every input matter.
        leaves, tree = jax.tree.flatten(made)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        return tree.unflatten([x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])

    autoencoder = Autoencoder(models.build(ae_cfg), params(ae_cfg))
    return Pipeline(models.build(cfg), params(cfg), autoencoder, TextEncoder(16, 4))


def test_same_seed_gives_the_same_video_in_another_batch(pipe):
    prompts = ["a red circle", "a blue square", "a green cross"]
    together = pipe(prompts, batch_size=4, settings=SETTINGS)
    apart = pipe(prompts, batch_size=2, settings=SETTINGS)
    assert together.videos_BTHWC.shape == (3, 8, 32, 32, 3) and together.videos_BTHWC.dtype == np.uint8
    np.testing.assert_allclose(together.latents_BTHWC, apart.latents_BTHWC, rtol=1e-4, atol=1e-5)
    other = pipe(prompts, batch_size=4, settings=SETTINGS, seed=1)
    assert np.abs(other.latents_BTHWC - together.latents_BTHWC).max() > 0.1


def test_prompt_and_reference_both_change_the_result(pipe):
    frame = np.full((1, 1, 32, 32, 3), 200, np.uint8)
    base = pipe(["a"], refs=frame, mode="i2v_head", settings=SETTINGS).latents_BTHWC
    assert np.abs(pipe(["b"], refs=frame, mode="i2v_head", settings=SETTINGS).latents_BTHWC - base).max() > 1e-3
    assert np.abs(pipe(["a"], refs=frame // 4, mode="i2v_head", settings=SETTINGS).latents_BTHWC - base).max() > 1e-3


def test_modes_and_references_must_fit(pipe):
    with pytest.raises(UserError, match="needs one reference a prompt"):
        pipe(["a"], mode="i2v_head", settings=SETTINGS)
    with pytest.raises(UserError, match="takes no reference"):
        pipe(["a"], refs=np.zeros((1, 1, 32, 32, 3), np.uint8), settings=SETTINGS)
    with pytest.raises(UserError, match="nearest valid height is 32"):
        pipe(["a"], settings=SETTINGS, height=30)
    with pytest.raises(UserError, match="unknown condition mode"):
        pipe(["a"], settings=SETTINGS, mode="i2v")


def test_pixels_survive_the_way_to_floats_and_back():
    values = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8(to_float(values)), values)


def test_no_prompt_leads_out_of_the_output_folder(tmp_path):
    prompts = ["../../etc/passwd", "/absolute", "a" * 500, "", "naïve\nprompt\x00"]
    videos = np.zeros((5, 2, 16, 16, 3), np.uint8)
    paths = write_samples(tmp_path / "out", videos, prompts, {"steps": 1}, fps=8)
    assert all(path.resolve().parent == (tmp_path / "out").resolve() for path in paths)
    assert len({path.name for path in paths}) == 5
    assert decode(paths[0]).shape == (2, 16, 16, 3)
    assert file_stem(3, "a red circle") == "0003-a-red-circle"
