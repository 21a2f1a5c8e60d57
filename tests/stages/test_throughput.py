"""Tokens per second and MFU of a training run, by hand."""

import numpy as np
import pytest

from osjax import models
from osjax.parallel import mesh
from osjax.stages import throughput as diffusion_work
from tests.e2e import two_stages


@pytest.mark.parametrize("trained, passes", [(1.0, 3), (0.0, 2)])
def test_rates_are_of_all_tokens_and_of_the_passes_that_train(trained, passes, monkeypatch):
    cfg = models.config("mmdit", **two_stages.diffusion().model)
    batch = {
        name: np.zeros(shape)
        for name, shape in {"latents": (8, 2, 4, 4, 4), "txt": (8, 12, 32), "vec": (8, 32)}.items()
    }
    monkeypatch.setattr(diffusion_work, "published_peak", lambda device: 1e-6)
    found = diffusion_work.throughput(cfg, trained, mesh.make(data=8))
    found.look_at("shape", batch)
    rates = found.rates("shape", 0.5)
    video, text, D = 2 * 2 * 2, 12, 32  # patches of two by two
    assert rates["tokens_per_s"] == 0.5 * 8 * (video + text)
    # 12 D ** 2 weights of linear layers a token in a double and in a single block, attention twice S ** 2 * D.
    blocks = 8 * 2 * (2 * 12 * D**2 * (video + text) + 2 * 2 * (video + text) ** 2 * D)
    assert 1 < rates["mfu"] * 8 * 1e6 / 0.5 / passes / blocks < 1.5  # inputs, modulation and outputs beside them


def test_nothing_is_counted_where_no_peak_is_known(monkeypatch):
    cfg = models.config("mmdit", **two_stages.diffusion().model)
    monkeypatch.setattr(diffusion_work.video_flops, "forward_flops", None)
    found = diffusion_work.throughput(cfg, 1.0, mesh.make(data=8))
    batch = {"latents": np.zeros((8, 2, 4, 4, 4)), "txt": np.zeros((8, 12, 32)), "vec": np.zeros((8, 32))}
    found.look_at("shape", batch)
    assert found.rates("shape", 1.0).keys() == {"tokens_per_s"}
