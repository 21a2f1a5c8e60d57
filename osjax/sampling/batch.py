"""A batch of samples on disk: what is finished stays, what was interrupted goes on where it was."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

import osjax
from osjax.errors import UserError
from osjax.flow.sampler import State
from osjax.sampling import names, prompts, t2i2v
from osjax.sampling.job import Job
from osjax.sampling.pipeline import Pipeline
from osjax.sampling.settings import T2I2V, SampleSettings
from osjax.sampling.write import Output
from osjax.types import Json


@dataclass(frozen=True)
class Wanted:
    """A sample to make. stem: of its files. job: the video. says: what its JSON will hold."""

    stem: str
    job: Job
    says: Json


class Batch:
    """The samples of many prompts, of which those that are finished are not made again.

    requests: the prompts with what goes with each. output: where samples go. sources: files of the models, for the
    JSON of each sample. samples: videos of a prompt that says no other number. overwrite: make again what is there with
    other settings.
    """

    def __init__(
        self,
        pipe: Pipeline,
        settings: SampleSettings,
        requests: Sequence[prompts.Request],
        output: Output,
        sources: Json,
        samples: int = 1,
        overwrite: bool = False,
    ):
        pipe.check(settings)
        self.pipe, self.settings, self.output, self.model, self.overwrite = pipe, settings, output, sources, overwrite
        check_references(settings, requests)
        if output.layout == names.VBENCH:  # its list has prompts twice, which have one file
            requests = prompts.merged(requests, output.by_suite)
        self.wanted = list(self._wanted(requests, samples))
        stems = [wanted.stem for wanted in self.wanted]
        alike = len({stem.casefold() for stem in stems}) < len(stems)
        names.distinct(stems, case=not alike or names.tells_case_apart(output.folder))
        self.missing = [w for w in self.wanted if self.overwrite or not self._finished(w)]

    def _finished(self, wanted: Wanted) -> bool:
        return self.output.finished(wanted.stem, self.settings.frames, wanted.says)

    def _wanted(self, requests: Sequence[prompts.Request], samples: int) -> Iterator[Wanted]:
        given = bool(self.settings.condition.references) and self.settings.mode != T2I2V
        each = [(n, request, k) for n, request in enumerate(requests) for k in range(request.samples or samples)]
        jobs = self.pipe.jobs(
            self.settings,
            [r.text for _, r, _ in each],
            [r.ref for _, r, _ in each] if given else None,
            [self.settings.negative if r.neg is None else r.neg for _, r, _ in each],
            [(self.settings.seed if r.seed is None else r.seed) + k for _, r, k in each],
        )
        for (n, request, sample), job in zip(each, jobs, strict=True):
            count, layout = request.samples or samples, self.output.layout
            stem = names.stem(layout, n, request.text, request.name, sample, count)
            if self.output.by_suite:
                stem = f"{names.suite_folder(request.suite, n)}/{stem}"
            files = [str(path.resolve()) for path in request.ref]
            row = self.pipe.describe_row(job, self.settings)
            says = {**self.pipe.describe(self.settings), **row, "sample": sample, "references": files}
            says |= {"crf": self.output.crf} if self.settings.frames > 1 else {}
            yield Wanted(stem, job, {**says, "model": self.model, "osjax": osjax.__version__})

    def make_first_frames(self) -> None:
        """Mode t2i2v: an image of each missing sample, kept as PNG, by a model that is freed before the video's."""
        output = Output(self.output.beside("first_frames"))
        still = t2i2v.image_settings(self.settings)
        says = {w.stem: {**self.pipe.describe_row(w.job, still), "model": self.model} for w in self.missing}
        asked = {key: getattr(still, key) for key in ("resolution", "aspect_ratio", "steps", "guidance")}
        says = {stem: {**row, **asked} for stem, row in says.items()}
        todo = [w for w in self.missing if self.overwrite or not output.finished(w.stem, 1, says[w.stem])]
        if todo:
            with _Bars("first frames", len(todo), still.steps) as bars:
                jobs, size = [w.job for w in todo], self.pipe.size(self.settings)
                images = t2i2v.first_frames(self.pipe.image, jobs, self.settings, size, bars.step)
                for wanted, image in zip(todo, images, strict=True):
                    output.write(wanted.stem, image[None], says[wanted.stem], self.settings.fps)
                    bars.sample()
        self.missing = [replace(w, job=replace(w.job, reference=output.media(w.stem, 1))) for w in self.missing]

    def make(self, compare: Callable[[np.ndarray, np.ndarray], None] | None = None) -> list[Path]:
        """Make what is missing; the paths of what was made.

        compare: gets the pixels (T, H, W, 3) of each sample, and those of the same sample made exactly, with every call
        of the model whole; it costs as much again.
        """
        paths = []
        with _Bars("samples", len(self.missing), self.settings.steps) as bars:
            made = self.pipe.stream([w.job for w in self.missing], self.settings, bars.step)
            for wanted, (video, _) in zip(self.missing, made, strict=True):
                paths.append(self.output.write(wanted.stem, video, wanted.says, self.settings.fps))
                if compare is not None:
                    compare(video, self._exact(wanted.job))
                bars.sample()
        return paths

    def _exact(self, job: Job) -> np.ndarray:
        spent = self.pipe.spent
        (video, _), *_ = self.pipe.stream([job], self.settings.changed(reuse="none"))
        self.pipe.spent = spent  # which tells of the samples that were asked for
        return video


class _Bars:
    """A bar over samples and one over the steps of the sample in work."""

    def __init__(self, label: str, samples: int, steps: int):
        self._samples = tqdm(total=samples, desc=label, unit="sample", disable=not samples)
        self._steps = tqdm(total=steps, desc="steps", unit="step", leave=False, position=1, disable=not samples)

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *error) -> None:
        self._steps.close()
        self._samples.close()

    def step(self, _: State) -> None:
        if self._steps.n == self._steps.total:  # the next sample began
            self._steps.reset()
        self._steps.update()

    def sample(self) -> None:
        self._samples.update()


def check_references(settings: SampleSettings, requests: Sequence[prompts.Request]) -> None:
    """UserError where the mode of the settings needs references that a prompt lacks, or takes none and one has some."""
    needs = bool(settings.condition.references) and settings.mode != T2I2V
    for number, request in enumerate(requests, 1):
        if needs and not request.ref:
            raise UserError(f"mode {settings.mode} needs a reference for prompt {number}: give --ref, or a ref column")
        if request.ref and not needs:
            raise UserError(f"mode {settings.mode} takes no reference, prompt {number} has one: give another --mode")
