"""T5 and CLIP together: prompts to the text states and the pooled vector that the video model takes.

Source: Open-Sora opensora/models/text/conditioner.py: T5's last states, CLIP's pooled output, no attention masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from osjax.data.tokenize import PromptTokenizer
from osjax.sampling.placement import Placed


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

    def free(self) -> None:
        """Give the memory of the weights back for good."""
        self._t5_params.free()
        self._clip_params.free()


def _apply(module: nn.Module, params: Any, ids_BM: jax.Array) -> Any:
    return module.apply({"params": params}, ids_BM)
