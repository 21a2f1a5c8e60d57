"""A video made longer: windows that begin with the end of what is there, joined where they overlap.

Each window is made with the last frames of the video so far as its reference: a clip where the model's windows have
room for one (v2v_head), else the last frame alone (i2v_head). The window shows those frames again; over a clip the old
ones fade into the new ones, so that the seam is no cut.
"""

from dataclasses import dataclass, replace

import numpy as np

from osjax.conditioning import modes
from osjax.errors import UserError
from osjax.sampling.denoise import OnStep
from osjax.sampling.job import Job
from osjax.sampling.pipeline import Pipeline
from osjax.sampling.settings import SampleSettings

WAYS = ("v2v_head", "i2v_head")  # to go on, the better one first


@dataclass(frozen=True)
class Plan:
    """How a video is made longer.

    settings: of every window. overlap: frames of the video so far that a window shows again. seams: the frames at which
    each window begins to be seen. frames: of the whole video.
    """

    settings: SampleSettings
    overlap: int
    seams: tuple[int, ...]
    frames: int


def plan(pipe: Pipeline, settings: SampleSettings, have: int, more: int) -> Plan:
    """How to add frames to a video.

    pipe: of the model. settings: of a window but for its mode. have, more: frames of the video, and those to add.
    UserError where the model cannot go on from anything.
    """
    problem: UserError | None = None
    for mode in WAYS:
        (reference,) = modes.of(mode).references
        window, overlap = replace(settings, mode=mode), reference.pixel_frames(pipe.causal)
        try:
            pipe.check(window)
        except UserError as error:
            problem = error
            continue
        step = pipe.frames(window) - overlap
        if have >= overlap and step > 0:
            return Plan(window, overlap, tuple(range(have, have + more, step)), have + more)
    raise problem or UserError("this model makes single frames: nothing can be made longer with it")


def extend(
    pipe: Pipeline, job: Job, wanted: Plan, video_THWC: np.ndarray, on_step: OnStep | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(the whole video (T, H, W, 3) uint8, the latents of its last window).

    pipe: of the model. job: prompt, negative and seed; window n takes the seed plus n. wanted: of `plan`. video_THWC:
    uint8, of the size that the settings make. on_step: see `Denoiser`.
    """
    latents = np.zeros(0)
    for n in range(len(wanted.seams)):
        end = video_THWC[-wanted.overlap :]
        one = replace(job, seed=(job.seed + n) % 2**63, reference=end)
        window, latents = next(pipe.stream([one], wanted.settings, on_step))
        video_THWC = join(video_THWC, window, wanted.overlap)
    return video_THWC[: wanted.frames], latents


def join(video_THWC: np.ndarray, window_THWC: np.ndarray, overlap: int) -> np.ndarray:
    """Two clips (uint8) as one, the last frames of the first fading into the first ones of the second.

    overlap: frames that both show; of a single one the first clip's stays.
    """
    share = np.linspace(0, 1, overlap + 2)[1:-1, None, None, None] if overlap > 1 else np.zeros((1, 1, 1, 1))
    both = (1 - share) * video_THWC[-overlap:] + share * window_THWC[:overlap]
    return np.concatenate([video_THWC[:-overlap], np.round(both).astype(np.uint8), window_THWC[overlap:]])
