"""A workdir, and a server of it that all tests share which neither end it nor limit it further."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from osjax import models
from osjax.models import lora
from osjax.weights import OPEN_SORA_V2, lora_file
from osjax.weights.lora import Adapters
from tests.sampling import tiny, trained
from tests.serve.server import Server
from tests.text_server import TextServer, words


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    return trained.write(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    """A file of adapters of the small model, which change what it makes."""
    cfg = models.config("mmdit", **tiny.DENOISER)
    made = nn.unbox(lora.create(lora.LoRAConfig(rank=2, alpha=8.0), models.abstract_params(cfg), jax.random.key(1)))
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda x: np.asarray(x) + rng.standard_normal(x.shape).astype("f"), made)
    path = tmp_path_factory.mktemp("adapters") / "star.safetensors"
    lora_file.write(path, cfg, Adapters(lora.LoRAConfig(rank=2, alpha=8.0), tree), OPEN_SORA_V2)
    return path


@pytest.fixture(scope="session")
def text():
    """A text server, which the server asks."""
    with TextServer(words) as running:
        yield running


@pytest.fixture(scope="session")
def server(workdir, adapters, text, tmp_path_factory):
    flags = (f"--config.refine.url={text.url}", f"--lora=star={adapters}", "--config.loaded=2")
    with Server(workdir, tmp_path_factory.mktemp("server") / "folder", *flags) as running:
        yield running
