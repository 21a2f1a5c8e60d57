"""The MMDiT equals the original: forward, gradients and zero inputs, in both weight layouts."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.flow import shift
from osjax.models.mmdit import model as mmdit
from tests import golden

LAYOUTS = {"mmdit_a": weights.OPEN_SORA_V2, "mmdit_b": weights.FLUX, "mmdit_c": weights.OPEN_SORA_V2}
FILE_KEYS = ("fused_qkv", "use_liger_rope")  # layouts of the file, not of the model


def config(name, **changes):
    fields = golden.read_json(f"manifest_{name}")["config"]
    return models.config("mmdit", **{k: v for k, v in fields.items() if k not in FILE_KEYS}, **changes)


def tensors(name):
    manifest = golden.read_json(f"manifest_{name}")
    return {n: golden.generate(n, tuple(s["shape"]), manifest["gain"]) for n, s in manifest["state_dict"].items()}


def load(name, **changes):
    cfg = config(name, **changes)
    return models.build(cfg), weights.from_torch(cfg, tensors(name), layout=LAYOUTS[name])


def inputs(arrays):
    order = ("img", "img_ids", "txt", "txt_ids", "timesteps", "y_vec", "cond", "guidance")
    return [arrays.get(f"in.{key}") for key in order]


@pytest.mark.parametrize("name", LAYOUTS)
def test_forward_matches_golden_in_float32(name):
    arrays, info = golden.read(name)
    model, params = load(name)
    out = jax.jit(model.apply)({"params": params}, *inputs(arrays))
    assert golden.relative_error(out, arrays["out"]) < info["tolerance_relative"]
    swapped = inputs(arrays)
    swapped[4] = swapped[4] + 0.1  # another timestep must be seen
    wrong = jax.jit(model.apply)({"params": params}, *swapped)
    assert golden.relative_error(wrong, arrays["out"]) > 100 * info["tolerance_relative"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_zero_inputs_match_golden_which_exposes_norm_epsilons(name):
    arrays, info = golden.read(f"{name}_zero")
    cfg = config(name)
    model, params = load(name)
    B, N, _ = arrays["out"].shape
    M, zeros = info["inputs"]["text_tokens"], np.zeros
    grid = np.indices(info["inputs"]["token_grid"]).reshape(1, 3, N).transpose(0, 2, 1)
    batch = [
        zeros((B, N, cfg.in_channels)),
        np.repeat(grid, B, 0),
        zeros((B, M, cfg.context_in_dim)),
        zeros((B, M, 3)),
        np.array([0.0, 1.0]),
        zeros((B, cfg.vec_in_dim)),
        zeros((B, N, cfg.cond_channels)) if cfg.cond_embed else None,
        zeros(B) if cfg.guidance_embed else None,
    ]
    batch = [None if x is None else jnp.asarray(x, jnp.float32) for x in batch]
    out = model.apply({"params": params}, *batch)
    assert golden.relative_error(out, arrays["out"]) < info["tolerance_relative"]


def test_gradients_match_golden_for_every_parameter():
    arrays, info = golden.read("mmdit_a")
    model, params = load("mmdit_a")
    args = inputs(arrays)

    def loss(params, img):
        return jnp.mean(jnp.square(model.apply({"params": params}, img, *args[1:]) - arrays["loss.target"]))

    value, (grads, grad_img) = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, args[0])
    assert abs(value - info["loss"]) / info["loss"] < 1e-6
    assert golden.relative_error(grad_img, arrays["loss.grad_img"]) < info["tolerance_relative"]
    by_name = weights.to_torch(model.cfg, grads)
    assert by_name.keys() == info["param_grad_l2"].keys()
    for name, want in info["param_grad_l2"].items():
        assert abs(np.linalg.norm(by_name[name].astype(np.float64)) / want - 1) < info["tolerance_relative"], name


@pytest.mark.parametrize("remat", ["full", "save_attention"])
def test_rematerialised_blocks_give_the_same_gradients(remat):
    arrays, _ = golden.read("mmdit_a")
    args = inputs(arrays)

    def grads(**changes):
        model, params = load("mmdit_a", **changes)
        return jax.jit(jax.grad(lambda p: jnp.square(model.apply({"params": p}, *args)).mean()))(params)

    assert config("mmdit_a", remat=remat) != config("mmdit_a")
    plain, again = grads(), grads(remat=remat)
    chex.assert_trees_all_close(plain, again, rtol=1e-4, atol=1e-7)


def test_bfloat16_stays_within_bfloat16_error_of_float32():
    arrays, _ = golden.read("mmdit_a")
    model, params = load("mmdit_a", dtype="bfloat16")
    error = golden.relative_error(model.apply({"params": params}, *inputs(arrays)), arrays["out"])
    assert 1e-4 < error < 0.05  # below: it did not run in bfloat16; above: something more than rounding


def test_a_cpu_multiplies_bfloat16_without_float32_copies_of_the_kernels():
    arrays, _ = golden.read("mmdit_a")
    model, params = load("mmdit_a", dtype="bfloat16")
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    run = jax.jit(lambda params: model.apply({"params": params}, *inputs(arrays)))
    text = run.lower(params).compile().as_text()
    kernel = params["single_blocks"]["mlp_in"]["kernel"]
    sizes = ",".join(map(str, kernel.shape))
    assert f"u16[{sizes}]" in text and f"f32[{sizes}]" not in text


@pytest.mark.parametrize(
    "name,family,layout",
    [
        ("full_mmdit_open_sora_v2", "open_sora", weights.OPEN_SORA_V2),
        ("full_mmdit_high_compression", "open_sora", weights.OPEN_SORA_V2),
        ("full_mmdit_flux_dev", "flux", weights.FLUX),
    ],
)
def test_full_size_state_dict_has_the_original_names_and_shapes(name, family, layout):
    manifest = golden.read_json(name)
    fields = {k: v for k, v in manifest["config"].items() if k not in FILE_KEYS}
    cfg = models.config("mmdit", **fields)
    shapes = weights.torch_shapes(cfg, layout=layout)
    assert shapes == {n: tuple(s) for n, s in manifest["tensors"].items()}
    total = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(models.abstract_params(cfg)))
    assert total == manifest["parameters"]
    other = weights.FLUX if layout == weights.OPEN_SORA_V2 else weights.OPEN_SORA_V2
    assert shapes.keys() != weights.torch_shapes(cfg, layout=other).keys()


def test_missing_condition_is_one_clear_error():
    arrays, _ = golden.read("mmdit_a")
    model, params = load("mmdit_a")
    with pytest.raises(UserError, match="cond is missing"):
        model.apply({"params": params}, *inputs(arrays)[:6])


def test_unknown_config_field_is_a_type_error():
    with pytest.raises(TypeError, match="hiden_size"):
        models.config("mmdit", hiden_size=256)


def test_head_dimension_that_does_not_fit_axes_is_refused():
    with pytest.raises(UserError, match="axes_dim"):
        models.config("mmdit", hidden_size=256, num_heads=4)


def test_times_of_released_weights_are_rounded_to_bfloat16_bit_for_bit():
    t_B = np.asarray(shift.schedule(50, 16 * 21, 33), np.float32)
    features = jax.jit(partial(mmdit.timestep_features, dtype="bfloat16"))  # where a compiler might leave casts out
    got = np.asarray(features(jnp.asarray(t_B)))
    # By numpy's own bfloat16, in the original's order: t, then 1000 * t, then the sinusoids are rounded.
    bf16 = ml_dtypes.bfloat16
    times = (t_B.astype(bf16).astype(np.float32) * 1000).astype(bf16).astype(np.float32)
    exponent = -np.float32(np.log(10_000.0)) * np.arange(128, dtype=np.float32) / 128
    phase = times[:, None] * np.exp(exponent.astype(np.float64)).astype(np.float32)
    want = np.concatenate([np.cos(phase), np.sin(phase)], -1).astype(bf16).astype(np.float32)
    assert (got == want).mean() > 0.999  # a sinusoid's last bit may round to the other side
    np.testing.assert_allclose(got, want, atol=2**-8)
    exact = np.asarray(mmdit.timestep_features(jnp.asarray(t_B)))
    assert 0.1 < np.linalg.norm(got - exact) / np.linalg.norm(exact) < 0.4  # what they would be told otherwise
    assert models.config("mmdit").time_dtype == "float32"  # runs that are trained here are told exact times
