"""Three AdamW steps of the whole diffusion step equal the original's."""

import jax
import numpy as np
import pytest

from osjax import models, weights
from osjax.models.mmdit import patch
from osjax.training import diffusion, optimizer, update
from osjax.training import state as states
from osjax.types import LatentBatch
from tests import golden
from tests.models.test_mmdit import config, tensors

ARRAYS, INFO = golden.read("train_steps")
TOL = INFO["tolerance_relative"]
LATENT = [n * m for n, m in zip(INFO["config"]["token_grid"], (1, 2, 2), strict=True)]


def draws(step):
    """Step's batch, noise and times; the golden stores tokens."""

    def latents(name):
        return np.asarray(patch.unpack(ARRAYS[f"step{step}.in.{name}"], 2, *LATENT))

    text = [ARRAYS[f"step{step}.in.{name}"] for name in ("txt", "y_vec")]
    return LatentBatch(latents("x_0"), *text, latents("cond")), latents("x_1"), ARRAYS[f"step{step}.in.t"]


def run(**changes):
    """(losses, norms, state) after the golden's steps."""
    settings = INFO["config"]
    cfg = optimizer.OptimizerConfig(
        **{
            "lr": settings["lr"],
            "eps": settings["eps"],
            "clip_norm": settings["clip_grad_norm"],
            "ema_decay": settings["ema_decay"],
            **changes,
        }
    )
    model_cfg = config("mmdit_a")
    module, tx = models.build(model_cfg), optimizer.make(cfg)
    params = weights.from_torch(model_cfg, tensors("mmdit_a"))
    state = states.create(lambda: jax.tree.map(jax.numpy.asarray, params), tx, with_ema=True)

    def loss_fn(params, given, key):
        return diffusion.loss(module, params, *given)

    step = jax.jit(lambda state, given: update.apply(state, given, jax.random.key(0), loss_fn, tx, cfg))
    losses, norms = [], []
    for n in range(settings["steps"]):
        state, metrics = step(state, draws(n))
        losses.append(float(metrics["loss"]))
        norms.append(float(metrics["grad_norm"]))
    return losses, norms, state


@pytest.fixture(scope="module")
def ours():
    return run()


def test_losses_and_gradient_norms_match_golden(ours):
    losses, norms, _ = ours
    assert golden.relative_error(losses, INFO["losses"]) < 1e-5
    assert golden.relative_error(norms, INFO["grad_norms_before_clipping"]) < 1e-4
    assert golden.relative_error(losses[::-1], INFO["losses"]) > TOL


@pytest.mark.parametrize("which", ["final", "ema"])
def test_parameters_match_golden_by_quantiles(ours, which):
    state = ours[2]
    tree = state.params if which == "final" else state.ema
    got = weights.to_torch(config("mmdit_a"), jax.device_get(tree))
    stored = {name.removeprefix(f"{which}."): a for name, a in ARRAYS.items() if name.startswith(f"{which}.")}
    error = np.concatenate([np.abs(got[name] - want).ravel() for name, want in stored.items()])
    noise = dict(zip((0.5, 0.99, 0.999), INFO["float32_noise"]["quantiles_0.5_0.99_0.999_0.9999"], strict=False))
    for quantile, size in noise.items():
        assert np.quantile(error, quantile) < 10 * size, quantile
    start = tensors("mmdit_a")
    moved = np.concatenate([np.abs(start[name] - want).ravel() for name, want in stored.items()])
    assert np.median(moved) > 1e4 * noise[0.5]


@pytest.mark.parametrize("which", ["final", "ema"])
def test_the_length_of_every_parameter_matches_golden(ours, which):
    state = ours[2]
    got = weights.to_torch(config("mmdit_a"), jax.device_get(state.params if which == "final" else state.ema))
    table = INFO[f"all_{which}_params"]
    assert set(got) == set(table)
    worst = max(abs(np.linalg.norm(got[name].astype(np.float64)) / row["l2"] - 1) for name, row in table.items())
    assert worst < TOL
    start = tensors("mmdit_a")
    assert max(abs(np.linalg.norm(start[name].astype(np.float64)) / row["l2"] - 1) for name, row in table.items()) > TOL


def test_another_epsilon_leaves_the_golden():
    assert golden.relative_error(run(eps=1e-2)[0], INFO["losses"]) > TOL
