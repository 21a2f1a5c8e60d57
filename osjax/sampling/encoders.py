"""T5 and CLIP together: prompts to the text states and the pooled vector that the video model takes.

Source: Open-Sora opensora/models/text/conditioner.py: T5's last states, CLIP's pooled output, no attention masks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from osjax import models
from osjax.data.tokenize import PromptTokenizer
from osjax.parallel import sharding
from osjax.sampling.placement import Placed, size_of
from osjax.types import Tree


class PromptEncoder(Protocol):
    """A text encoder as a pipeline takes it: the built-in one of conditioning/text.py, `T5AndCLIP`, or another.

    One that has `cut(prompt)`, as these two have it, has the words told that do not fit.
    """

    @property
    def max_length(self) -> int:
        """Text states of a prompt."""

    def encode_batch(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(states (B, M, C), pooled (B, C)) of B prompts, float32."""


@dataclass(frozen=True)
class TextModel:
    """A text model with its tokenizer.

    module, params: `t5` or `clip_text`; params may be host arrays or `Stored`.
    """

    tokenizer: PromptTokenizer
    module: nn.Module
    params: Tree


class T5AndCLIP:
    """The text encoder of the released models, used as the built-in one of conditioning/text.py is.

    t5, clip: the two models.
    offload: keep both models' weights on the host; T5 visits the device first, then CLIP.
    mesh: of this host's devices, to split weights and prompts over; None is the first device.
    """

    def __init__(self, t5: TextModel, clip: TextModel, offload: bool = False, mesh: Mesh | None = None):
        self._t5, self._clip, self._mesh = t5, clip, mesh
        self._t5_params, self._clip_params = (Placed(m.params, self._shardings(m), offload) for m in (t5, clip))
        self._run_t5, self._run_clip = (jax.jit(_apply, static_argnums=0) for _ in range(2))

    def _shardings(self, model: TextModel) -> Any:
        return None if self._mesh is None else sharding.of_boxed(models.abstract_params(model.module.cfg), self._mesh)

    @property
    def max_length(self) -> int:
        """Text states of a prompt."""
        return self._t5.tokenizer.max_length

    def cut(self, prompt: str) -> dict[str, str]:
        """{"T5's 512 tokens": the words of `prompt` that do not fit} and the same of CLIP; empty where all do."""
        pairs = (("T5", self._t5.tokenizer), ("CLIP", self._clip.tokenizer))
        left = {f"{name}'s {tokenizer.max_length} tokens": tokenizer.cut(prompt) for name, tokenizer in pairs}
        return {what: words for what, words in left.items() if words}

    def encode_batch(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """T5's states (B, M, C) and CLIP's pooled vectors (B, C) of B prompts, float32 on the host."""
        rows = len(prompts)
        with self._t5_params.on_device() as params, self._under():
            states = self._run_t5(self._t5.module, params, self._split(self._t5.tokenizer(prompts)))
            states_BMC = np.asarray(states, np.float32)[:rows]
        with self._clip_params.on_device() as params, self._under():
            _, pooled = self._run_clip(self._clip.module, params, self._split(self._clip.tokenizer(prompts)))
            pooled_BC = np.asarray(pooled, np.float32)[:rows]
        return states_BMC, pooled_BC

    def _under(self):
        return nullcontext() if self._mesh is None else sharding.under(self._mesh)

    def _split(self, ids_BM: np.ndarray) -> Any:
        """Rows over the mesh, filled up with the last one to what it divides."""
        if self._mesh is None:
            return ids_BM
        filled = np.pad(ids_BM, ((0, -len(ids_BM) % self._mesh.size), (0, 0)), mode="edge")
        return jax.device_put(filled, sharding.batch_sharding(self._mesh))

    def programs(
        self, device: jax.sharding.Sharding | None = None
    ) -> Iterator[tuple[str, int, Callable[[], jax.stages.Lowered]]]:
        """(name, bytes of weights, how to lower it) of both models' programs on one prompt; reads no weights.

        device: to compile for, instead of the first one here.
        """
        for name, model, placed, run in (
            ("t5", self._t5, self._t5_params, self._run_t5),
            ("clip", self._clip, self._clip_params, self._run_clip),
        ):
            params = placed.shapes()
            if device is not None:
                params = jax.tree.map(lambda x: x.update(sharding=device), params)
            ids = jax.ShapeDtypeStruct((1, model.tokenizer.max_length), np.int32)
            yield f"{name} encode", size_of(params), partial(run.lower, model.module, params, ids)

    def release(self) -> None:
        """Give the memory of the weights back; those on disk are read again when they are next used."""
        self._t5_params.release()
        self._clip_params.release()

    def free(self) -> None:
        """Give the memory of the weights back for good."""
        self._t5_params.free()
        self._clip_params.free()


def _apply(module: nn.Module, params: Tree, ids_BM: jax.Array) -> Any:
    return module.apply({"params": params}, ids_BM)
