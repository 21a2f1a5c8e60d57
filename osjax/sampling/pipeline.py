"""Prompts to videos: text, condition, one compiled denoise loop, decode."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from osjax import models
from osjax.conditioning import build, modes
from osjax.errors import UserError
from osjax.models.lora import Adapted
from osjax.models.velocity import Params
from osjax.parallel import sharding
from osjax.sampling import cut_text, observe, references, t2i2v, takes
from osjax.sampling import int8 as quantization
from osjax.sampling.autoencoder import Autoencoder, to_float, to_uint8
from osjax.sampling.calibration import Curve
from osjax.sampling.denoise import Denoiser, OnStep, plan
from osjax.sampling.encoders import PromptEncoder
from osjax.sampling.inputs import Inputs
from osjax.sampling.job import Job
from osjax.sampling.options import Options, RunOptions, check_names
from osjax.sampling.placement import Placed, Stored, size_of
from osjax.sampling.sample import Sample, Spent
from osjax.sampling.settings import T2I2V, Changes, SampleSettings
from osjax.types import Json

if TYPE_CHECKING:  # names the argument of a constructor that stands above this floor
    from ml_collections import ConfigDict

Progress = Callable[[range], Iterable[int]]
__all__ = ["Autoencoder", "Job", "Pipeline", "Sample", "SampleSettings", "to_float", "to_uint8"]


class FromConfig(Protocol):
    """The type of `osjax.parts.pipeline.from_config`, which explains its arguments."""

    def __call__(self, cfg: "ConfigDict", mesh: Mesh | None = None) -> "Pipeline": ...


class FromCheckpoint(Protocol):
    """The type of `osjax.parts.pipeline.from_checkpoint`, which explains its arguments."""

    def __call__(self, folder: Path | str, **options: Unpack[RunOptions]) -> "Pipeline": ...


class Pipeline:
    """`pipe(prompts, mode=..., refs=..., ...)` -> Sample.

    A video depends on its prompt, references, seed and settings alone: neither on the other videos of a call nor on
    their order. On one kind of hardware it is the same bit for bit.
    """

    # Constructors from configs and from the workdirs of runs. They stand above this floor: osjax/parts/pipeline.py.
    from_config: ClassVar[FromConfig]
    from_checkpoint: ClassVar[FromCheckpoint]

    def __init__(
        self,
        module: nn.Module,
        params: Params | Stored,
        autoencoder: Autoencoder,
        text_encoder: PromptEncoder,
        *,
        settings: SampleSettings | None = None,
        **options: Unpack[Options],
    ):
        """module, params: a velocity model such as the MMDiT; params may be host arrays, `Stored`, or `Adapted` ones
            that are on the devices.

        autoencoder, text_encoder: the ones that the velocity model was trained with.
        settings: what calls start from. options: see `Options`.
        """
        check_names(options, Options)
        mesh, offload = options.get("mesh"), options.get("offload", False)
        boxed = models.abstract_params(module.cfg)
        if options.get("int8"):
            params, boxed = quantization.prepare(module, params)
        beside = isinstance(params, Adapted)  # they come from a training step, and lie where they should
        shardings = None if mesh is None or beside else sharding.of_boxed(boxed, mesh)
        self.module, self.text_encoder, self.image = module, text_encoder, options.get("image")
        self.calibration, self.distilled = options.get("calibration"), options.get("distilled")
        self.spent = Spent()
        self.settings = settings or SampleSettings()
        self._denoiser, self._params = Denoiser(module, mesh), Placed(params, shardings, offload)
        self._autoencoder, self._ae_params = autoencoder, Placed(autoencoder.params, None, offload)

    def __call__(
        self,
        prompts: Sequence[str],
        *,
        refs: Sequence[references.Given] | None = None,
        negatives: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        samples: int = 1,
        progress: Progress | None = None,
        settings: SampleSettings | None = None,
        **changes: Unpack[Changes],
    ) -> Sample:
        """Make `samples` videos a prompt, those of one prompt next to each other.

        refs: one a prompt for modes that are given an image or a clip: an array (frames, H, W, 3), a path, or a tuple
            of them; i2v_loop takes its first and last frame.
        negatives, seeds: one a prompt instead of `negative` and `seed` of the settings. Sample k of a prompt has the
            seed plus k, and the noise follows from that number alone.
        progress: see `make`.
        changes: fields of SampleSettings on top of `settings` or of the pipeline's own.
        UserError for a mode without its references or a size that the autoencoder cannot take.
        """
        settings = (settings or self.settings).changed(**changes)
        return self.make(self.jobs(settings, prompts, refs, negatives, seeds, samples), settings, progress)

    def make(self, jobs: Sequence[Job], settings: SampleSettings, progress: Progress | None = None) -> Sample:
        """Make the videos of `jobs`, which may have noise of their own to start from.

        jobs: of `jobs`, with these settings. progress: wraps the iterator over the videos, such as tqdm.
        """
        if settings.mode == T2I2V:
            assert self.image is not None  # `check` has seen to it
            jobs = t2i2v.with_first_frames(self.image, jobs, settings, self.size(settings))
        videos_of, numbers = self.stream(jobs, settings), range(len(jobs))
        made = [next(videos_of) for _ in (progress(numbers) if progress else numbers)]
        videos, latents = map(np.stack, zip(*made, strict=True))
        return Sample(videos, latents, self.describe(settings), [self.describe_row(job, settings) for job in jobs])

    def jobs(
        self,
        settings: SampleSettings,
        prompts: Sequence[str],
        refs: Sequence[references.Given] | None = None,
        negatives: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
        samples: int = 1,
    ) -> list[Job]:
        """The videos to make of these prompts, checked: `samples` a prompt, those of one prompt next to each other.

        settings: complete. refs, negatives, seeds, UserError: see `__call__`.
        """
        if not prompts or isinstance(prompts, str):
            raise UserError("prompts is a list of at least one text: give ['a red circle']")
        needs = bool(settings.condition.references) and settings.mode != T2I2V
        if needs != (refs is not None):
            need = "needs one reference a prompt" if needs else "takes no reference"
            raise UserError(f"mode {settings.mode} {need}: {'give' if needs else 'leave out'} refs")
        for name, column in (("refs", refs), ("negatives", negatives), ("seeds", seeds)):
            if column is not None and len(column) != len(prompts):
                raise UserError(f"{len(column)} {name} for {len(prompts)} prompts: give one a prompt")
        self.check(settings)
        negatives = [settings.negative] * len(prompts) if negatives is None else negatives
        seeds = [settings.seed] * len(prompts) if seeds is None else seeds
        given = [None] * len(prompts) if refs is None else refs
        cut_text.tell(self.text_encoder, [*map(settings.says, prompts), *negatives])
        columns = zip(prompts, seeds, negatives, given, strict=True)
        return [Job(p, int(seed) + k, neg, ref) for p, seed, neg, ref in columns for k in range(samples)]

    def check(self, settings: SampleSettings) -> None:
        """UserError for settings that these models cannot take."""
        T, *_ = self.latent_shape(settings)
        takes.check(self.module, self._autoencoder, settings, T)
        if self.distilled is not None:
            self.distilled.check(settings)
        if settings.mode == T2I2V and self.image is None:
            raise UserError("mode t2i2v needs an image model: give config.image its weights")
        self.calls(settings)  # refuses guidance that acts in no step, and what was not measured

    def curve(self, settings: SampleSettings) -> Curve | None:
        """What was measured of the model, for settings that take it. UserError where there is nothing."""
        if not settings.calibrated:
            return None
        if self.calibration is None:
            raise UserError("this pipeline was told of no calibration: use one of a workdir or of weight files")
        return self.calibration.read(settings.condition.name)

    def size(self, settings: SampleSettings) -> tuple[int, int]:
        """(height, width) in pixels of what these settings make with these models."""
        return settings.size(self._autoencoder.module.stride.space * self.module.inputs.patch)

    def latent_shape(self, settings: SampleSettings) -> tuple[int, int, int, int]:
        """(T, H, W, C) of the latents of these settings.

        UserError with the nearest valid size or number of frames where the autoencoder cannot take theirs.
        """
        return self._autoencoder.latent_shape(settings.frames, *self.size(settings))

    def frames(self, settings: SampleSettings) -> int:
        """Frames of a video that these settings make: fewer than they ask for where repeated ones are dropped."""
        first, last = self._dropped(settings)
        return settings.frames - first - last

    def _dropped(self, settings: SampleSettings) -> tuple[int, int]:
        """Frames that are left out at the head and at the tail, which show a given image again."""
        extra = (self._autoencoder.time_compression - 1) * settings.drop_padding
        references = settings.condition.references
        return extra * (modes.HEAD_IMAGE in references), extra * (modes.TAIL_IMAGE in references)

    @property
    def rows(self) -> int:
        """Videos that one run of the loop makes: one for every group of devices that holds a whole model."""
        return self._denoiser.rows

    @property
    def causal(self) -> bool:
        """Whether the first latent frame stands for the first frame alone."""
        return self._autoencoder.causal

    def calls(self, settings: SampleSettings) -> int:
        """How often these settings ask the video model: once for each prediction of each evaluation of the solver."""
        return int(plan(settings, self.module, self.latent_shape(settings), self.curve(settings))[1][-1])

    def describe(self, settings: SampleSettings) -> Json:
        """The settings as JSON values, with the height and width in pixels that follow from them.

        What nothing reads beside the others is left out, as `SampleSettings.unread` says.
        """
        height, width = self.size(settings)
        read = {name: value for name, value in asdict(settings).items() if name not in settings.unread()}
        return {**read, "height": height, "width": width}

    def describe_row(self, job: Job, settings: SampleSettings) -> Json:
        """What is a job's own, as JSON values: prompt, the text that the encoder gets, negative prompt and seed."""
        return {"prompt": job.prompt, "text": settings.says(job.prompt), "negative": job.negative, "seed": job.seed}

    def stream(
        self, jobs: Sequence[Job], settings: SampleSettings, on_step: OnStep | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(video (T, H, W, 3) uint8, latents (T, H, W, C)) of one job after the other, as they are made.

        jobs: of `jobs`, with these settings. on_step: called after every denoise step, see `Denoiser`.
        """
        rows = self._denoiser.rows
        for start in range(0, len(jobs), rows):
            group = list(jobs[start : start + rows])
            filled = group + group[-1:] * (rows - len(group))
            given = self._given(filled, settings)
            x_BTHWC = self._latents(filled, given, settings, on_step)
            for video, latents, _ in zip(self._decoded(x_BTHWC, settings), x_BTHWC, group, strict=False):
                yield video, latents

    def observe(self, jobs: Sequence[Job], settings: SampleSettings) -> Curve:
        """What `calibration` keeps, measured on these jobs: see `sampling/observe.py`.

        jobs: of `jobs`, with these settings. UserError for models that cannot be watched.
        """
        filled = [[job] * self.rows for job in jobs]
        runs = [self._inputs(row, self._given(row, settings), settings) for row in filled]
        with self._params.on_device() as params:
            return observe.curve(self._denoiser, params, runs, settings, self.describe(settings))

    def programs(self, settings: SampleSettings) -> Iterator[tuple[str, int, Callable[[], jax.stages.Lowered]]]:
        """(name, bytes of weights, how to lower it) of every program that these settings run; reads no weights."""
        shape, ae, ae_params = self.latent_shape(settings), self._autoencoder, self._ae_params.shapes()
        alone = None
        if self._denoiser.mesh is not None:  # all but the velocity model runs on one of its devices
            alone = SingleDeviceSharding(self._denoiser.mesh.devices.flat[0])
            ae_params = jax.tree.map(lambda x: x.update(sharding=alone), ae_params)
        text_programs = getattr(self.text_encoder, "programs", None)  # the built-in one has no weights
        if text_programs is not None:
            yield from text_programs(alone)
        params, tokens = self._params.shapes(), self.text_encoder.max_length
        for reference in settings.condition.references:
            clip = (1, reference.pixel_frames(ae.causal), *self.size(settings), 3)
            yield f"encode {reference.name}", size_of(ae_params), partial(ae.lower, "encode", ae_params, clip)
        yield "denoise", size_of(params), partial(self._denoiser.lower, params, shape, tokens, settings)
        yield "decode", size_of(ae_params), partial(ae.lower, "decode", ae_params, (1, *shape))

    def free(self) -> None:
        """Give the memory of the weights back; the pipeline cannot be used any more."""
        self._params.free()
        self._ae_params.free()

    @contextmanager
    def _autoencoder_on_device(self) -> Iterator[Autoencoder]:
        with self._ae_params.on_device() as params:
            yield replace(self._autoencoder, params=params)

    def _given(self, jobs: Sequence[Job], settings: SampleSettings) -> dict[str, np.ndarray]:
        """Latents of the references, one row a job."""
        mode, size = settings.condition, self.size(settings)
        if not mode.references:
            return {}
        with self._autoencoder_on_device() as ae:
            fps = settings.fps if settings.match_fps else None
            clips = (references.given(mode, job.reference, size, ae.causal, fps) for job in jobs)
            latents = [references.encode(one, ae) for one in clips]
            return jax.tree.map(lambda *rows: np.concatenate(rows), *latents)

    def _text(self, jobs: Sequence[Job], settings: SampleSettings) -> tuple[np.ndarray, np.ndarray]:
        """Each prompt is encoded alone, so that its bits do not depend on its company."""
        texts = ([settings.says(job.prompt) for job in jobs], [job.negative for job in jobs])
        unique = {text: self.text_encoder.encode_batch([text]) for text in dict.fromkeys(texts[0] + texts[1])}
        states, pooled = (
            np.stack([np.concatenate([np.asarray(unique[text][part]) for text in side]) for side in texts])
            for part in (0, 1)
        )
        return states, pooled

    def _latents(
        self,
        jobs: Sequence[Job],
        given: dict[str, np.ndarray],
        settings: SampleSettings,
        on_step: OnStep | None,
    ) -> np.ndarray:
        shape = self.latent_shape(settings)
        noise_BTHWC, inputs = self._inputs(jobs, given, settings)
        with self._params.on_device() as params:
            made = self._denoiser(params, noise_BTHWC, inputs, settings, on_step, self.curve(settings))
            x_BTHWC = np.array(made.x_BTHWC)
        self.spent = Spent(self.spent.ran + made.ran, self.spent.calls + made.calls)
        if settings.put_back if settings.put_back is not None else self._autoencoder.causal:
            ae = self._autoencoder
            for image in (r for r in settings.condition.references if r.frames == 1):
                x_BTHWC[:, image.latent_slice(shape[0], ae.causal, ae.time_compression)] = given[image.name]
        return x_BTHWC

    def _inputs(
        self, jobs: Sequence[Job], given: dict[str, np.ndarray], settings: SampleSettings
    ) -> tuple[jax.Array, Inputs]:
        """What the loop starts from, and all else that the model is told."""
        shape = self.latent_shape(settings)
        noise_BTHWC = jnp.stack([job.noise(shape) for job in jobs])
        return noise_BTHWC, Inputs(*self._text(jobs, settings), self._condition(given, len(jobs), shape, settings))

    def _condition(
        self, given: dict[str, np.ndarray], B: int, shape: tuple[int, int, int, int], settings: SampleSettings
    ) -> jax.Array | None:
        if not self.module.inputs.condition:
            return None
        ae, mode_B = self._autoencoder, build.same_mode(settings.condition.name, B)
        return build.condition(mode_B, given, shape, ae.causal, ae.time_compression)

    def _decoded(self, x_BTHWC: np.ndarray, settings: SampleSettings) -> list[np.ndarray]:
        with self._autoencoder_on_device() as ae:
            videos = [to_uint8(ae.decode(jnp.asarray(x)[None])[0])[: settings.frames] for x in x_BTHWC]
        first, last = self._dropped(settings)
        return [video[first : len(video) - last] for video in videos]
