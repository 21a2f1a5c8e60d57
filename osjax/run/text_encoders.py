"""Text encoders from the user's local folders in the Hugging Face layout: config.json, tokenizer and weights."""

from functools import partial
from pathlib import Path

from jax.sharding import Mesh

from osjax import models
from osjax.data import tokenize
from osjax.run import model_folder, stored
from osjax.sampling.encoders import T5AndCLIP, TextModel
from osjax.weights.load import open_leaves


def load(
    t5_folder: str, clip_folder: str, dtype: str = "bfloat16", offload: bool = False, mesh: Mesh | None = None
) -> T5AndCLIP:
    """T5 and CLIP, their weights to be read on first use. UserError for a folder that lacks something.

    mesh: of this host's devices, to split both models and the prompts over.
    """
    return T5AndCLIP(
        _text_model("t5", Path(t5_folder), tokenize.t5, dtype),
        _text_model("clip_text", Path(clip_folder), tokenize.clip, dtype),
        offload,
        mesh,
    )


def _text_model(family: str, folder: Path, tokenizer, dtype: str) -> TextModel:
    cfg = model_folder.config(family, folder, dtype)
    opened = stored.of_leaves(cfg, partial(open_leaves, cfg, model_folder.weight_file(folder)), dtype)
    return TextModel(tokenizer(folder), models.build(cfg), opened)
