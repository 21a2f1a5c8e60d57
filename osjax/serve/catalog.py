"""The models that are served, as the process that answers knows them: their configs without their weights.

It has the pipelines that `osjax sample` has and asks them the same questions; none of them ever runs here.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from osjax.conditioning import modes
from osjax.errors import UserError
from osjax.parts import pipeline
from osjax.parts.sampling import SamplingKeys
from osjax.parts.stage import MeshKeys
from osjax.sampling import longer
from osjax.sampling.job import Job
from osjax.sampling.pipeline import Pipeline
from osjax.sampling.settings import T2I2V, SampleSettings
from osjax.serve.options import Limits
from osjax.serve.schema import CreateRequest, ExtendRequest, told
from osjax.serve.store import Video
from osjax.types import Json

SAME = {"seed": 0, "negative": ""}  # of settings, which videos that are made together may differ in


@dataclass(frozen=True)
class Asked:
    """A request in the terms of the sampler.

    model: its name. prompt: text. settings: complete. shown: what its answer says besides.
    """

    model: str
    prompt: str
    settings: SampleSettings
    shown: Json


class Catalog:
    """The served models by name; the first is the default.

    models: their checked keys. limits: of what clients may ask for. loras: names of adapters.
    """

    def __init__(self, models: Mapping[str, SamplingKeys], limits: Limits, loras: Iterable[str] = ()):
        self.limits, self.loras = limits, list(loras)
        self.pipes: dict[str, Pipeline] = {}
        for name, keys in models.items():
            sizes = {axis: size for axis, size in vars(keys.mesh).items() if not isinstance(size, bool)}
            if wrong := next((axis for axis, size in sizes.items() if not (size == -1 or size > 0)), None):
                raise UserError(f"models.{name}.mesh.{wrong}: give 1 or more devices, or -1 for those left", status=2)
            # Nothing runs here, so there is one device, and nothing to quantise.
            here = replace(keys, mesh=MeshKeys(data=1), int8=False, offload=False)
            self.pipes[name] = pipeline.of_keys(here)
            self.pipes[name].check(self.pipes[name].settings)

    def pipe(self, name: str | None) -> tuple[str, Pipeline]:
        """(name, pipeline) of a model. UserError for one that is not served."""
        name = name or next(iter(self.pipes))
        if name not in self.pipes:
            raise UserError(f"model {name[:80]!r} is not served: use one of {', '.join(self.pipes)}")
        return name, self.pipes[name]

    def modes(self, name: str) -> list[str]:
        """The condition modes that a model takes."""
        pipe = self.pipes[name]
        conditioned = pipe.module.inputs.condition
        usual = [mode for mode, references in modes.MODES.items() if conditioned or not references]
        return [*usual, T2I2V] if pipe.image is not None and conditioned else usual

    def asked(self, request: CreateRequest, kinds: tuple[str, ...]) -> Asked:
        """What a request means. kinds: of its references, in order, "image" or "video".

        UserError, ValueError for what these models cannot do or the limits forbid.
        """
        name, pipe = self.pipe(request.model)
        limits = self.limits
        prompt = told(request.prompt, "prompt", limits.prompt)
        if not prompt:
            raise ValueError("prompt is empty: write what to show")
        mode = request.mode or self._mode(kinds)
        changes: dict[str, Any] = {"mode": mode, "seed": request.seed}
        if request.seed is None:
            changes["seed"] = secrets.randbelow(2**31)
        for field, key in (("steps", "steps"), ("solver", "solver"), ("guidance", "guidance")):
            changes[key] = getattr(request, field)
        changes |= {"guidance_img": request.guidance_img, "motion_score": request.motion}
        if request.negative is not None:
            changes["negative"] = told(request.negative, "negative", limits.prompt)
        if request.size is not None:
            changes["width"], changes["height"] = (int(side) for side in request.size.split("x"))
        settings = pipe.settings.changed(**{k: v for k, v in changes.items() if v is not None})
        settings = self._timed(pipe, settings, request)
        self._bounded(pipe, settings)
        pipe.check(settings)
        self._given(settings, kinds)
        height, width = pipe.size(settings)
        if settings.frames > 1 and (height % 2 or width % 2):
            raise UserError(f"size {width}x{height} is odd: MP4s want even sizes")
        # As wide and as long as it was asked for, whatever a table says tomorrow.
        settings = replace(settings, height=height, width=width)
        shown = {"size": f"{width}x{height}", "seconds": f"{settings.frames / settings.fps:g}"}
        if request.lora is not None:
            shown["lora"] = self.lora(request.lora)
        return Asked(name, prompt, settings, shown)

    def lora(self, name: str) -> str:
        """The name of adapters that are served. name: as a client has it. UserError for any other."""
        if name not in self.loras:
            raise UserError(f"lora {name[:80]!r} is not served: use one of {', '.join(self.loras) or 'none'}")
        return name

    def window(self, request: ExtendRequest, source: Video | None) -> tuple[str, SampleSettings]:
        """(model, settings of a window but for its mode) with which a video is made longer.

        request: what is asked for. source: the video, where it was made here.
        """
        name, pipe = self.pipe(request.model if source is None else source.model)
        settings = pipe.settings if source is None else SampleSettings(**source.settings)
        if settings.frames == 1:
            settings = replace(settings, frames=pipe.settings.frames)
        height, width = pipe.size(settings)
        seed = secrets.randbelow(2**31) if request.seed is None else request.seed
        settings = replace(settings, height=height, width=width, seed=seed, steps=request.steps or settings.steps)
        self._bounded(pipe, settings)
        return name, settings

    def longer(
        self, request: ExtendRequest, pipe: Pipeline, settings: SampleSettings, have: int
    ) -> tuple[str, longer.Plan]:
        """(prompt, how a video is made longer).

        request: what is asked for. pipe, settings: of `window`. have: frames of the video. UserError, ValueError for
        what the model cannot do or the limits forbid.
        """
        prompt = told(request.prompt, "prompt", self.limits.prompt)
        if not prompt:
            raise ValueError("prompt is empty: write what to show")
        more = max(1, round(request.seconds * settings.fps))
        if have + more > self.limits.longer:
            raise ValueError(f"the video would have {have + more} frames, {self.limits.longer} at most: ask for less")
        return prompt, longer.plan(pipe, settings, have, more)

    def _mode(self, kinds: tuple[str, ...]) -> str:
        if not kinds:
            return "t2v"
        if len(kinds) > 1:
            return "i2v_loop"
        return "i2v_head" if kinds == ("image",) else "v2v_head"

    def _timed(self, pipe: Pipeline, settings: SampleSettings, request: CreateRequest) -> SampleSettings:
        if request.frames is not None and request.seconds is not None:
            raise ValueError("seconds and frames are both given: leave one out")
        if request.frames is not None:
            return replace(settings, frames=request.frames)
        if request.seconds is None:
            return settings
        wanted = max(1, round(request.seconds * settings.fps))
        most = self.limits.frames
        if wanted > most:
            raise ValueError(f"{request.seconds:g} seconds are {wanted} frames, {most} at most are made: ask for less")
        for frames in sorted(range(max(1, wanted - 16), wanted + 17), key=lambda n: (abs(n - wanted), -n)):
            if self._fits(pipe, replace(settings, frames=frames)):
                return replace(settings, frames=frames)
        return replace(settings, frames=wanted)  # `check` says why not

    def _fits(self, pipe: Pipeline, settings: SampleSettings) -> bool:
        try:
            pipe.check(settings)
        except UserError:
            return False
        return True

    def _bounded(self, pipe: Pipeline, settings: SampleSettings) -> None:
        limits, (height, width) = self.limits, pipe.size(settings)
        if height * width > limits.pixels:
            raise ValueError(f"size {width}x{height} is more than {limits.pixels} pixels a frame: ask for less")
        for name in ("frames", "steps"):
            if getattr(settings, name) > getattr(limits, name):
                raise ValueError(f"{name} is {getattr(settings, name)}, {getattr(limits, name)} at most: ask for less")

    def _given(self, settings: SampleSettings, kinds: tuple[str, ...]) -> None:
        """UserError where the references are not those that the mode takes."""
        wanted = 0 if settings.mode == T2I2V else len(settings.condition.references)
        if len(kinds) != wanted:
            have = {0: "no reference", 1: "one reference"}.get(len(kinds), f"{len(kinds)} references")
            need = {0: "takes none", 1: "takes one"}.get(wanted, f"takes {wanted}, first and last")
            raise UserError(f"mode {settings.mode} {need}, and {have} came: change the mode or the files")

    def settings(self, fields: Json) -> SampleSettings:
        """The settings that the store has of a video."""
        return SampleSettings(**fields)

    def describe(self, model: str, prompt: str, settings: SampleSettings) -> Json:
        """What is written into the files of a video, as `osjax sample` writes it into its JSON.

        model: its name. prompt: the text. settings: complete.
        """
        pipe = self.pipes[model]
        job = Job(prompt, settings.seed, settings.negative)
        return {**pipe.describe(settings), **pipe.describe_row(job, settings), "model": model}


def together(model: str, settings: SampleSettings) -> str:
    """A text that is the same for videos that may be made in one go: of one model, and alike but for noise and words.

    model: its name. settings: complete.
    """
    return json.dumps([model, asdict(replace(settings, **SAME))], sort_keys=True)
