"""Whole guided runs of the small MMDiTs against the original, latent by latent."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax import models, weights
from osjax.conditioning import build, modes
from osjax.flow import guidance, sampler, shift
from osjax.models import velocity
from tests import golden
from tests.flow import integrate

RUNS = "t2v i2v_head_osci i2v_head_13steps i2v_tail i2v_loop v2v_head hc_i2v_head distilled".split()


@functools.cache
def load_model(name):
    manifest = golden.read_json(f"manifest_{name}")
    fields = {**manifest["config"]}
    layout = weights.Layout(fused_qkv=fields.pop("fused_qkv"), interleaved_rope=not fields.pop("use_liger_rope"))
    cfg = models.config("mmdit", **fields)
    tensors = {n: golden.generate(n, tuple(t["shape"]), manifest["gain"]) for n, t in manifest["state_dict"].items()}
    return models.build(cfg), weights.from_torch(cfg, tensors, layout=layout)


def condition(arrays, run, latent_shape):
    """The condition of the first two predictions; the third has none and an empty mask."""
    B, T, H, W, C = latent_shape
    mode = modes.of(run["cond_type"])
    references = {}
    for reference in mode.references:
        number = 0 if reference.at == 0 or "in.ref_0_1" not in arrays else 1
        references[reference.name] = np.moveaxis(arrays[f"in.ref_0_{number}"], 0, -1)[None]
    return build.condition(build.same_mode(run["cond_type"], B), references, (T, H, W, C), run["causal"])


@functools.partial(jax.jit, static_argnums=(0, 1))
def advance(name, size, params, txt, vec, cond, strength, calls, state, first, last):
    def velocity_fn(x_BNC, t_B, branch):
        text = [both[jnp.minimum(branch, 1)] for both in (txt, vec)]
        given = velocity.Given(*text, None if cond is None else jnp.where(branch < 2, cond, 0), strength)
        return velocity.of_packed(load_model(name)[0], params, x_BNC, size, t_B, given)

    return integrate.advance(velocity_fn, state, calls, first, last)


def denoise(name, **changes):
    arrays, meta = golden.read(f"denoise_{name}")
    run = {**meta["config"], **changes}
    model, params = load_model(run["model"])
    noise = np.moveaxis(arrays["in.noise"], 1, -1)
    B, T, H, W, _ = noise.shape
    p, guided = run["patch_size"], run["method"] == "i2v"
    txt, vec = (
        jnp.stack(
            [arrays[f"in.{x}_prompts"], np.broadcast_to(arrays[f"in.{x}_negative"], arrays[f"in.{x}_prompts"].shape)]
        )
        for x in ("txt", "vec")
    )
    cond = condition(arrays, run, noise.shape) if guided else None
    if guided:
        packed = model.pack(cond)
        np.testing.assert_array_equal(jnp.concatenate([packed, packed, 0 * packed]), arrays["first_step_cond"])

    times = shift.schedule(run["num_steps"], (H // p) * (W // p), T, run["shift"], run["flow_shift"])
    tables = guided and guidance.weights(
        run["num_steps"],
        T,
        run["guidance"],
        run["guidance_img"],
        text_oscillation=run["text_osci"],
        image_oscillation=run["image_osci"],
        image_ramp=run["scale_temporal_osci"] and "i2v" in run["cond_type"],
    )
    calls, ends = sampler.plan(times, tables or None)
    strength = jnp.full((B,), run["guidance"]) if model.cfg.guidance_embed else None
    one_step = functools.partial(advance, run["model"], (T, H, W), params, txt, vec, cond, strength, calls)
    states = [sampler.start(model.pack(jnp.asarray(noise)))]
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        states.append(one_step(states[-1], first, last))
    return arrays, meta, np.stack([state.x for state in states]), model.unpack(states[-1].x, (T, H, W))


@pytest.mark.parametrize("name", RUNS)
def test_guided_run_matches_the_original_at_every_step(name):
    arrays, meta, path, latents = denoise(name)
    tolerance = meta["tolerance_relative"]
    assert golden.relative_error(path, arrays["trajectory"]) <= tolerance
    for got, want in zip(path, arrays["trajectory"], strict=True):
        assert golden.relative_error(got, want) <= tolerance
    assert golden.relative_error(np.moveaxis(latents, -1, 1), arrays["final_latent_unpacked"]) <= tolerance


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("i2v_tail", {"scale_temporal_osci": False}),
        ("i2v_loop", {"guidance_img": 3.01}),
        ("i2v_head_13steps", {"text_osci": False}),
    ],
)
def test_another_guidance_leaves_the_original_run(name, change):
    arrays, meta, path, _ = denoise(name, **change)
    assert golden.relative_error(path, arrays["trajectory"]) > 10 * meta["tolerance_relative"]
