"""T5 and CLIP together: prompts to the text states and the pooled vector that the video model takes.

Source: Open-Sora opensora/models/text/conditioner.py: T5's last states, CLIP's pooled output, no attention masks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from osjax.data.tokenize import PromptTokenizer
from osjax.sampling.placement import Placed, size_of


@dataclass(frozen=True)
class TextModel:
    """module, params: `t5` or `clip_text`; params may be host arrays or `Stored`."""

    tokenizer: PromptTokenizer
    module: nn.Module
    params: Any


class T5AndCLIP:
    """Has `encode_batch` and `max_length`, as the built-in encoder of conditioning/text.py has.

    offload: keep both models' weights on the host; T5 visits the device first, then CLIP.
    """

    def __init__(self, t5: TextModel, clip: TextModel, offload: bool = False):
        self._t5, self._clip = t5, clip
        self._t5_params, self._clip_params = (Placed(m.params, None, offload) for m in (t5, clip))
        self._run_t5, self._run_clip = (jax.jit(_apply, static_argnums=0) for _ in range(2))

    @property
    def max_length(self) -> int:
        """Text states of a prompt."""
        return self._t5.tokenizer.max_length

    def encode_batch(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Prompts -> (states (B, M, C), pooled (B, C)), float32 on the host."""
        with self._t5_params.on_device() as params:
            states_BMC = np.asarray(self._run_t5(self._t5.module, params, self._t5.tokenizer(prompts)), np.float32)
        with self._clip_params.on_device() as params:
            _, pooled = self._run_clip(self._clip.module, params, self._clip.tokenizer(prompts))
            pooled_BC = np.asarray(pooled, np.float32)
        return states_BMC, pooled_BC

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

    def free(self) -> None:
        """Give the memory of the weights back for good."""
        self._t5_params.free()
        self._clip_params.free()


def _apply(module: nn.Module, params: Any, ids_BM: jax.Array) -> Any:
    return module.apply({"params": params}, ids_BM)
