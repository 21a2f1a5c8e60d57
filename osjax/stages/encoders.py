"""The encoders of a diffusion stage: from rows of the loader to what its step takes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from osjax.conditioning import build, modes
from osjax.parallel import host, sharding
from osjax.sampling.autoencoder import Autoencoder
from osjax.sampling.encoders import PromptEncoder
from osjax.stages.cut_captions import CutCaptions
from osjax.types import NamedTree, Row

# Latents of these are kept on disk whatever the stage's modes, so that stages of other modes share them.
ALWAYS = ("i2v_loop",)


class Encoders:
    """Rows {video, text}, or features of them from disk -> {latents, references, txt, vec}.

    module: the autoencoder's. read: reads its weights, on first use; so does `text`. states_dtype: holds the text
    states without loss. weights: of the condition modes. at_once: clips of one device that are encoded at a time, so
    that memory does not grow with the batch; 0: all.
    """

    def __init__(
        self,
        module: nn.Module,
        read: Callable[[], Autoencoder],
        text: PromptEncoder,
        states_dtype: str,
        mesh: Mesh,
        weights: Mapping[str, float],
        at_once: int = 0,
    ):
        self.module, self.text, self.states_dtype, self.mesh, self.weights = module, text, states_dtype, mesh, weights
        self._read, self._at_once = read, at_once
        self.cut_captions = CutCaptions(getattr(text, "cut", None) if jax.process_index() == 0 else None)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        return self._read()

    @cached_property
    def null(self) -> tuple[np.ndarray, np.ndarray]:
        """Text features of the empty text; may be set to those of cached ones."""
        return self.encode_text([""])

    def release_autoencoder(self) -> None:
        """Give back the memory of the autoencoder's weights, which are read again when they are next used."""
        self.__dict__.pop("autoencoder", None)

    def release_text(self) -> None:
        """Give back the memory of the text encoders' weights, as `release_autoencoder` does."""
        release = getattr(self.text, "release", None)  # the built-in one has no weights
        if release is not None:
            release()

    def of_videos(self, batch: NamedTree) -> Row:
        video = host.pixels_to_global(batch["video"], self.mesh)
        latents = self._encode(video)
        references = self._encoded(video, latents, self._usable(latents.shape[1]))
        return {"latents": latents, "references": references, **self._of_text(batch)}

    def of_cached(self, batch: NamedTree) -> Row:
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
        latents = self._encode(video_BTHWC)
        references = self._encoded(video_BTHWC, latents, self._kept(latents.shape[1]))
        own = self.cached_shapes(video_BTHWC.shape[1:4])
        return {name: x for name, x in {"latents": latents, **references}.items() if name in own}

    def encode_text(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts -> states (B, M, C) and pooled vectors (B, C), float32 on the host."""
        self.cut_captions.add([text for text in texts if text])  # the null text is no caption
        txt, vec = self.text.encode_batch(list(texts))
        return np.asarray(txt), np.asarray(vec)

    def _encoded(self, video: jax.Array, latents: jax.Array, names: Iterable[str]) -> dict[str, jax.Array]:
        return build.training_references(self._encode, video, latents, tuple(names), self.module.stride.causal)

    def _encode(self, video: jax.Array) -> jax.Array:
        ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        mine = video.shape[0] // ways
        if not 0 < self._at_once < mine:
            return self.autoencoder.encode(video).astype(jnp.float32)
        where = sharding.batch_sharding(self.mesh)
        starts = range(0, mine, self._at_once)
        parts = [
            self.autoencoder.encode(_rows(video, ways, n, min(n + self._at_once, mine), sharding=where)) for n in starts
        ]
        return _joined(parts, ways, sharding=where)

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

    def _of_text(self, batch: NamedTree) -> Row:
        if "txt" in batch:
            return {"txt": batch["txt"], "vec": batch["vec"]}
        txt, vec = self.encode_text([str(text) for text in batch["text"]])
        return {"txt": txt, "vec": vec}


@partial(jax.jit, static_argnums=(1, 2, 3), static_argnames="sharding")
def _rows(x: jax.Array, ways: int, first: int, last: int, sharding: NamedSharding) -> jax.Array:
    """Some rows of each device."""
    rows = x.reshape(ways, -1, *x.shape[1:])[:, first:last].reshape(-1, *x.shape[1:])
    return jax.lax.with_sharding_constraint(rows, sharding)


@partial(jax.jit, static_argnums=1, static_argnames="sharding")
def _joined(parts: Sequence[jax.Array], ways: int, sharding: NamedSharding) -> jax.Array:
    """The inverse: every device's rows in their order."""
    whole = jnp.concatenate([x.reshape(ways, -1, *x.shape[1:]) for x in parts], axis=1).astype(jnp.float32)
    return jax.lax.with_sharding_constraint(whole.reshape(-1, *whole.shape[2:]), sharding)
