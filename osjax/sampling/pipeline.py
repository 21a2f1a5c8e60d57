"""Prompts to videos: text, condition, one compiled denoise loop, decode."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.conditioning import build, modes
from osjax.errors import UserError
from osjax.flow import guidance, sampler, shift
from osjax.models.autoencoder import LatentScale
from osjax.models.mmdit import patch


@dataclass(frozen=True)
class SampleSettings:
    """How to sample. Sizes in pixels and frames; the defaults are the original's where it has one."""

    mode: str = "t2v"
    frames: int = 8
    height: int = 64
    width: int = 64
    steps: int = 50
    guidance: float = 7.5  # on the text; 1 is none
    guidance_img: float = 3.0  # on the condition; 1 is none
    text_oscillation: bool = True
    image_oscillation: bool = True
    image_ramp: bool = True  # only for i2v modes, as in the original
    shift: bool = True
    alpha: float | None = None  # replaces the shift strength that size and duration imply
    seed: int = 0

    def __post_init__(self):
        modes.index(self.mode)
        if self.steps < 1:
            raise UserError(f"steps is {self.steps}: sampling needs at least 1")


@dataclass(frozen=True)
class Sample:
    """videos_BTHWC: uint8. latents_BTHWC: normalised, float32. settings: what made them."""

    videos_BTHWC: np.ndarray
    latents_BTHWC: np.ndarray
    settings: dict[str, Any]


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder with its parameters: pixels in [-1, 1] to normalised latents and back.

    module: keeps the contract of models/autoencoder.py. scale: a further normalisation of its latents, measured on
    data, per channel or the same for all; the released autoencoders need none.
    """

    module: nn.Module
    params: Any
    scale: LatentScale = LatentScale()
    _jit: dict[str, Callable] = field(default_factory=dict, compare=False, repr=False)

    @property
    def causal(self) -> bool:
        return self.module.stride.causal

    @property
    def time_compression(self) -> int:
        return self.module.stride.time

    def latent_shape(self, T: int, H: int, W: int) -> tuple[int, int, int, int]:
        """Latent (T, H, W, C) of a video; UserError where the stride does not divide it."""
        return *self.module.latent_shape(T, H, W), self.module.cfg.latent_channels

    def _compiled(self, method: str) -> Callable:
        if method not in self._jit:
            self._jit[method] = jax.jit(partial(self.module.apply, method=method))
        return self._jit[method]

    def encode(self, video_BTHWC: jax.Array) -> jax.Array:
        return self.scale.normalise(self._compiled("encode")({"params": self.params}, video_BTHWC))

    def decode(self, latents_BTHWC: jax.Array) -> jax.Array:
        return self._compiled("decode")({"params": self.params}, self.scale.restore(latents_BTHWC))


def to_uint8(video: np.ndarray) -> np.ndarray:
    """Pixels in [-1, 1] -> uint8, rounded."""
    return np.clip(np.round((np.asarray(video, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def to_float(video: np.ndarray) -> np.ndarray:
    """uint8 -> float32 pixels in [-1, 1]."""
    return np.asarray(video, np.float32) / 127.5 - 1


class Pipeline:
    """`pipe(prompts, mode=..., refs=..., ...)` -> Sample.

    A prompt's noise depends on the seed and on its place in the list, never on the batch it is computed in.
    """

    def __init__(self, module: nn.Module, params: Any, autoencoder: Autoencoder, text_encoder: Any):
        """module, params: a velocity model such as the MMDiT. text_encoder: has `encode_batch(prompts)`."""
        self.module, self.params = module, params
        self.autoencoder, self.text_encoder = autoencoder, text_encoder
        self._compiled: dict[tuple, Callable] = {}

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        refs: Sequence[np.ndarray] | None = None,
        negative: str = "",
        batch_size: int = 16,
        progress: Callable | None = None,
        settings: SampleSettings | None = None,
        **changes,
    ) -> Sample:
        """Make one video a prompt.

        refs: one uint8 (frames, H, W, 3) array a prompt for modes that are given an image or a clip; i2v_loop takes its
        first and last frame. changes: fields of SampleSettings. progress: wraps the iterator over batches.
        UserError for a mode without its refs or a size that the autoencoder cannot take.
        """
        settings = SampleSettings(**{**asdict(settings or SampleSettings()), **changes})
        mode = modes.MODES[modes.index(settings.mode)]
        if bool(mode.references) != (refs is not None):
            need = "needs one reference a prompt" if mode.references else "takes no reference"
            raise UserError(f"mode {settings.mode} {need}: {'give' if mode.references else 'leave out'} refs")
        if refs is not None and len(refs) != len(prompts):
            raise UserError(f"{len(refs)} refs for {len(prompts)} prompts: give one a prompt")
        shape = self.autoencoder.latent_shape(settings.frames, settings.height, settings.width)
        starts = range(0, len(prompts), batch_size)
        videos, latents = [], []
        for start in progress(starts) if progress else starts:
            rows = slice(start, start + batch_size)
            batch = list(prompts[rows])
            x = self._latents(batch, None if refs is None else refs[rows], negative, start, batch_size, shape, settings)
            latents.append(np.asarray(x)[: len(batch)])
            videos.append(to_uint8(self.autoencoder.decode(x))[: len(batch)])
        return Sample(np.concatenate(videos), np.concatenate(latents), {**asdict(settings), "negative": negative})

    def _latents(self, prompts, refs, negative, start, batch_size, shape, settings) -> jax.Array:
        """One batch, filled up to `batch_size` by repeating its last prompt so that every batch has one shape."""
        fill = batch_size - len(prompts)
        prompts = prompts + prompts[-1:] * fill
        key = jax.random.key(settings.seed)
        noise = jnp.stack([jax.random.normal(jax.random.fold_in(key, start + i), shape) for i in range(batch_size)])
        txt, vec = self.text_encoder.encode_batch(prompts)
        null_txt, null_vec = self.text_encoder.encode_batch([negative] * batch_size)
        cond = self._condition(refs, fill, shape, batch_size, settings)
        text = (np.concatenate([txt, null_txt, null_txt]), np.concatenate([vec, null_vec, null_vec]))
        return self._denoise(shape, settings)(self.params, noise, *map(jnp.asarray, text), cond)

    def _condition(self, refs, fill, shape, B, settings) -> jax.Array | None:
        """[condition, condition, nothing], 3 B rows as the guidance branches need; None if the model has none."""
        if not self.module.cfg.cond_embed:
            return None
        ae, mode, latents = self.autoencoder, modes.MODES[modes.index(settings.mode)], {}
        for reference in mode.references:
            frames = reference.pixel_frames(ae.causal)
            short = [len(r) for r in refs if len(r) < frames]
            if short:
                raise UserError(
                    f"{reference.name} needs {frames} frames, a reference has {short[0]}: give a longer one"
                )
            clip = np.stack([r[:frames] if reference.at_head else r[-frames:] for r in refs])
            clip = np.concatenate([clip, np.repeat(clip[-1:], fill, 0)])
            latents[reference.name] = ae.encode(jnp.asarray(to_float(clip)))
        args = (latents, shape, ae.causal, ae.time_compression)
        given = build.condition(build.same_mode(settings.mode, B), *args)
        nothing = build.condition(build.same_mode("t2v", B), *args)
        return jnp.concatenate([given, given, nothing])

    def _denoise(self, shape: tuple[int, int, int, int], s: SampleSettings) -> Callable:
        """The whole loop as one compiled call, kept per latent shape and guidance plan."""
        known = (shape, s.steps, s.guidance, s.guidance_img, s.text_oscillation, s.image_oscillation, s.image_ramp)
        known += (s.shift, s.alpha, s.mode)
        if known not in self._compiled:
            self._compiled[known] = jax.jit(partial(_denoise, self.module, s))
        return self._compiled[known]


def _denoise(module: nn.Module, s: SampleSettings, params, noise_BTHWC, txt, vec, cond) -> jax.Array:
    B, T, H, W, _ = noise_BTHWC.shape
    p = module.cfg.patch_size
    # An empty condition changes nothing when it is dropped, so t2v needs no guidance on it.
    image = s.guidance_img if modes.MODES[modes.index(s.mode)].references and cond is not None else 1.0
    weights = guidance.weights(
        s.steps,
        T,
        s.guidance,
        image,
        text_oscillation=s.text_oscillation,
        image_oscillation=s.image_oscillation,
        image_ramp=s.image_ramp and s.mode.startswith("i2v"),
    )
    times = shift.schedule(s.steps, (H // p) * (W // p), T, s.shift, s.alpha)
    cond = None if cond is None else patch.pack(cond, p)

    def velocity(x, t_B, ways):
        rows = len(x)
        ids = patch.img_ids(rows, T, H, W, p), patch.txt_ids(rows, txt.shape[1])
        c = None if cond is None else cond[:rows]
        return module.apply({"params": params}, x, ids[0], txt[:rows], ids[1], t_B, vec[:rows], c)

    x = sampler.sample(velocity, patch.pack(noise_BTHWC, p), times, weights)
    return patch.unpack(x, p, T, H, W)
