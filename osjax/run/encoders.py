"""The encoders of a diffusion stage: from rows of the loader to what its step takes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from osjax.conditioning import build, modes
from osjax.parallel import host
from osjax.sampling.autoencoder import Autoencoder

# Latents of these are kept on disk whatever the stage's modes, so that stages of other modes share them.
ALWAYS = ("i2v_loop",)


class Encoders:
    """Rows {video, text}, or features of them from disk -> {latents, references, txt, vec}.

    module: the autoencoder's. read: reads its weights, on first use; so does `text`. states_dtype: holds the text
    states without loss. weights: of the condition modes.
    """

    def __init__(
        self,
        module: nn.Module,
        read: Callable[[], Autoencoder],
        text: Any,
        states_dtype: str,
        mesh: Mesh,
        weights: Mapping[str, float],
    ):
        self.module, self.text, self.states_dtype, self.mesh, self.weights = module, text, states_dtype, mesh, weights
        self._read = read

    @cached_property
    def autoencoder(self) -> Autoencoder:
        return self._read()

    @cached_property
    def null(self) -> tuple[np.ndarray, np.ndarray]:
        """Text features of the empty text; may be set to those of cached ones."""
        return self.encode_text([""])

    def of_videos(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        video = host.to_global(batch["video"], self.mesh)
        latents = self.autoencoder.encode(video)
        references = self._encoded(video, latents, self._usable(latents.shape[1]))
        return {"latents": latents, "references": references, **self._of_text(batch)}

    def of_cached(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        wanted = modes.references_of(self._usable(batch["latents"].shape[1]))
        references = {r.name: batch[r.name if self._is_own(r) else "latents"] for r in wanted}
        return {"latents": batch["latents"], "references": references, **self._of_text(batch)}

    def cached_shapes(self, shape: tuple[int, int, int]) -> dict[str, tuple[int, int, int, int]]:
        """Shapes of what `to_cache` makes of one clip (frames, height, width)."""
        T, H, W = self.module.latent_shape(*shape)
        C, (causal, time) = self.module.cfg.latent_channels, self._stride
        frames = {r.name: r.latent_frames(causal, time) for r in modes.references_of(self._kept(T)) if self._is_own(r)}
        return {name: (frames, H, W, C) for name, frames in {"latents": T, **frames}.items()}

    def to_cache(self, video_BTHWC: jax.Array) -> dict[str, jax.Array]:
        """`latents` of a global batch of videos, and those of the references that are encoded by themselves."""
        latents = self.autoencoder.encode(video_BTHWC)
        references = self._encoded(video_BTHWC, latents, self._kept(latents.shape[1]))
        own = self.cached_shapes(video_BTHWC.shape[1:4])
        return {name: x for name, x in {"latents": latents, **references}.items() if name in own}

    def encode_text(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts -> states (B, M, C) and pooled vectors (B, C), float32 on the host."""
        txt, vec = self.text.encode_batch(list(texts))
        return np.asarray(txt), np.asarray(vec)

    def _encoded(self, video: jax.Array, latents: jax.Array, names: Iterable[str]) -> dict[str, jax.Array]:
        return build.training_references(self.autoencoder.encode, video, latents, tuple(names), *self._stride)

    @property
    def _stride(self) -> tuple[bool, int]:
        return self.module.stride.causal, self.module.stride.time

    def _usable(self, T: int) -> tuple[str, ...]:
        """Modes that give something to clips of T latent frames; images are given nothing."""
        return tuple(modes.usable_weights(self.weights, T, *self._stride)) if T > 1 else ()

    def _kept(self, T: int) -> tuple[str, ...]:
        """Modes whose references are kept on disk."""
        return (*ALWAYS, *self._usable(T)) if T > 1 else ()

    def _is_own(self, reference: modes.Reference) -> bool:
        """Whether a reference is encoded by itself; otherwise the latents of the whole clip stand for it."""
        return reference.frames == 1 or self.module.stride.causal

    def _of_text(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        if "txt" in batch:
            return {"txt": batch["txt"], "vec": batch["vec"]}
        txt, vec = self.encode_text([str(text) for text in batch["text"]])
        return {"txt": txt, "vec": vec}
