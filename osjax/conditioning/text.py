"""Text for the model: a small built-in encoder, and null-text dropout.

The built-in encoder needs no training and no download. It gives every word a fixed pseudo-random direction, which is
enough for a small model to learn which words go with which pictures.
Source of dropout: Open-Sora scripts/diffusion/train.py, opensora/utils/train.py.
"""

import functools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from osjax.errors import UserError

_WORD = re.compile(r"\w+|[^\w\s]")


@functools.lru_cache(maxsize=65536)
def _word_vector(word: str, width: int) -> np.ndarray:
    """A vector of unit mean square that depends on the word alone, the same in every process and on every host."""
    values = np.random.RandomState(zlib.crc32(word.encode())).standard_normal(width)
    return (values / np.sqrt(np.mean(values**2))).astype(np.float32)


def words_of(text: str) -> list[str]:
    """The words of a text as the built-in encoder reads them: lower-cased, marks of punctuation are words."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class TextEncoder:
    """Prompt -> text states and pooled vector. width: C of both; max_length: M, words beyond it are cut."""

    width: int = 64
    max_length: int = 16

    def __post_init__(self):
        if self.width < 2 or self.width % 2 or self.max_length < 1:
            raise UserError(
                f"text encoder of width {self.width} and max_length {self.max_length}: "
                "give an even width and a max_length of at least 1."
            )

    def _positions(self) -> np.ndarray:
        """Sines and cosines of the word position, (M, C), a tenth as long as a word so that words stay apart."""
        rate = 1.0 / 100.0 ** (np.arange(self.width // 2) / (self.width // 2))
        angle = np.arange(self.max_length)[:, None] * rate[None]
        features = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        return (0.1 * features * np.sqrt(2)).astype(np.float32)

    @functools.lru_cache(maxsize=4096)  # noqa: B019 (of the arguments, which are frozen): captions come again
    def encode(self, prompt: str) -> tuple[np.ndarray, np.ndarray]:
        """One prompt -> (txt_MC, y_vec_C), float32. The empty prompt is the null text.

        Words are lower-cased; punctuation marks count as words. Places after the last word hold the pad vector, and
        the pooled vector is their sum, again of unit mean square (the pad vector where there are none).
        """
        words = words_of(prompt)[: self.max_length]
        pad = _word_vector("<pad>", self.width)
        txt = np.stack([_word_vector(word, self.width) for word in words] + [pad] * (self.max_length - len(words)))
        pooled = txt[: len(words)].sum(axis=0) if words else pad
        return txt + self._positions(), pooled / np.sqrt(np.mean(pooled**2))

    def cut(self, prompt: str) -> dict[str, str]:
        """{what is full: the words of `prompt` that do not fit}; empty where all do."""
        words = list(_WORD.finditer(prompt))
        if len(words) <= self.max_length:
            return {}
        return {f"the text encoder's {self.max_length} words": prompt[words[self.max_length].start() :].strip()}

    def encode_batch(self, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Prompts -> (txt_BMC, y_vec_BC), float32."""
        txt, pooled = zip(*map(self.encode, prompts), strict=True)
        return np.stack(txt), np.stack(pooled)


def fit_null_text(null_txt_1MC: jax.Array, length: int) -> jax.Array:
    """Null text of another length: a short one repeats its last token, a long one is an error."""
    missing = length - null_txt_1MC.shape[1]
    if missing < 0:
        raise UserError(
            f"the null text has {null_txt_1MC.shape[1]} tokens, prompts have {length}: shorten the null text."
        )
    return jnp.concatenate([null_txt_1MC, jnp.repeat(null_txt_1MC[:, -1:], missing, axis=1)], axis=1)


def replace_dropped(features: jax.Array, null: jax.Array, uniform_B: jax.Array, probability: float) -> jax.Array:
    """`features` (B, ...), of which rows with uniform_B < probability become `null` (leading axis 1)."""
    dropped = (uniform_B < probability).reshape(-1, *(1,) * (features.ndim - 1))
    return jnp.where(dropped, null, features)


def drop_text(
    key: jax.Array,
    txt_BMC: jax.Array,
    y_vec_BC: jax.Array,
    null_txt_1MC: jax.Array,
    null_vec_1C: jax.Array,
    t5: float,
    clip: float,
) -> tuple[jax.Array, jax.Array]:
    """Null-text dropout. Text states and pooled vector are dropped independently, with probabilities t5 and clip."""
    B = txt_BMC.shape[0]
    uniform_t5, uniform_clip = (jax.random.uniform(k, (B,)) for k in jax.random.split(key))
    null_txt = fit_null_text(null_txt_1MC, txt_BMC.shape[1])
    return (
        replace_dropped(txt_BMC, null_txt, uniform_t5, t5),
        replace_dropped(y_vec_BC, null_vec_1C, uniform_clip, clip),
    )
