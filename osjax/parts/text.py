"""The text encoder from config keys: T5 and CLIP from the user's local folders, or the built-in one.

Folders are in the Hugging Face layout: config.json, tokenizer and weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from osjax import models
from osjax.conditioning.text import TextEncoder
from osjax.data import tokenize
from osjax.errors import UserError
from osjax.parallel import mesh as device_mesh
from osjax.parts import model_folder, stored
from osjax.parts.groups import refuse
from osjax.sampling.encoders import T5AndCLIP, TextModel
from osjax.weights.load import open_leaves

T5_TOKENS = 512  # of T5 in the original


@dataclass(frozen=True)
class TextKeys:
    """The `text` group. T5 and CLIP go together; without them texts go through the built-in encoder of words."""

    width: int = 64  # features of the built-in encoder
    max_length: int = 16  # words that the built-in encoder reads
    t5: str | None = None  # folder of T5 v1.1 in the Hugging Face layout; with clip, instead of the built-in encoder
    clip: str | None = None  # folder of CLIP-L


@dataclass(frozen=True)
class TextPart:
    """What encodes texts. t5, clip: folders, or None for the built-in encoder `own`."""

    t5: str | None
    clip: str | None
    own: TextEncoder | None

    @property
    def tokens(self) -> int:
        """Text tokens that the video model is given."""
        return self.own.max_length if self.own else T5_TOKENS

    @property
    def states_dtype(self) -> str:
        """The format that holds its states without loss: T5 computes in bfloat16."""
        return "float32" if self.own else "bfloat16"

    def encoder(self, dtype: str = "bfloat16", offload: bool = False, mesh: Mesh | None = None):
        """The encoder; weights of T5 and CLIP are read on first use. UserError for a folder that lacks something.

        dtype: of T5's and CLIP's weights and computation. offload: keep them on the host between prompts. mesh: of
        this host's devices, to split both models and the prompts over.
        """
        return self.own or load(self.t5, self.clip, dtype, offload, mesh)

    def check(self) -> None:
        """UserError for folders that lack something, or weights that do not fit; tokenizers and headers are read."""
        if self.own is None:
            load(self.t5, self.clip)
            for family, folder in (("t5", Path(self.t5)), ("clip_text", Path(self.clip))):
                open_leaves(model_folder.config(family, folder, "bfloat16"), model_folder.weight_file(folder))

    def fingerprint(self) -> str:
        """What tells this text encoder from others."""
        return repr(self.own) if self.own else model_folder.fingerprint(self.t5, self.clip)


def of_keys(keys: TextKeys, key: str = "text") -> TextPart:
    """The text encoder of a group of keys; nothing is read. UserError for half a pair of folders."""
    if bool(keys.t5) != bool(keys.clip):
        raise UserError(f"{key}.t5 and {key}.clip belong together: give both folders, or neither", status=2)
    if keys.t5:
        refuse(keys, key, ("t5", "clip"), f"{key}.t5 and {key}.clip encode the texts")
        return TextPart(keys.t5, keys.clip, None)
    if keys.width < 1 or keys.max_length < 1:
        raise UserError(f"{key}.width and {key}.max_length must be 1 or more", status=2)
    return TextPart(None, None, TextEncoder(keys.width, keys.max_length))


def of_this_host() -> Mesh | None:
    """The mesh over which a host encodes the texts of its own rows, weights split; None with one device."""
    devices = jax.local_devices()
    return device_mesh.make(data=1, fsdp=len(devices), devices=devices) if len(devices) > 1 else None


def load(
    t5_folder: str, clip_folder: str, dtype: str = "bfloat16", offload: bool = False, mesh: Mesh | None = None
) -> T5AndCLIP:
    """T5 and CLIP of two folders, their weights to be read on first use. UserError for what a folder lacks.

    t5_folder, clip_folder: in the Hugging Face layout, of T5 v1.1 and of CLIP or its text tower. dtype, offload, mesh:
    as `TextPart.encoder` takes them.
    """
    return T5AndCLIP(
        _text_model("t5", Path(t5_folder), tokenize.t5, dtype),
        _text_model("clip_text", Path(clip_folder), tokenize.clip, dtype),
        offload,
        mesh,
    )


def _text_model(family: str, folder: Path, tokenizer: Callable, dtype: str) -> TextModel:
    cfg = model_folder.config(family, folder, dtype)
    opened = stored.of_leaves(cfg, partial(open_leaves, cfg, model_folder.weight_file(folder)), dtype)
    return TextModel(tokenizer(folder), models.build(cfg), opened)
