"""How to sample: one frozen set of choices, and the sizes that follow from it."""

import math
from dataclasses import dataclass, replace
from typing import TypedDict, Unpack

import numpy as np

from osjax.conditioning import modes
from osjax.data import buckets, caption
from osjax.errors import UserError
from osjax.flow.solvers import SOLVERS
from osjax.sampling import skips

T2I2V = "t2i2v"  # an image model makes the first frame, then i2v_head goes on from it
OF_REFERENCES = ("guidance_img", "image_oscillation", "image_ramp", "match_fps", "put_back", "drop_padding")
SCHEDULES = SHIFTED, MEASURED = "shifted", "measured"
TABLE_MULTIPLE = 16  # what sizes in the original's tables divide by; 32 with an autoencoder of that stride


@dataclass(frozen=True)
class SampleSettings:
    """All choices of a call.

    The defaults are the original's (Open-Sora configs/diffusion/inference/256px.py) where it has one.

    height, width: pixels; both, or neither to take them from `resolution` ("256px", "720p") and `aspect_ratio`
        (width:height).
    solver: a row of `flow.solvers.SOLVERS`, euler as in the original. Those that look back at earlier steps take what
        guidance changes from one step to the next, as the oscillations do, for a bend of the path.
    guidance: on the text; guidance_img: on the condition; 1 is none. A guidance-distilled model is told `guidance`
        instead. The oscillations take guidance away on odd steps after the tenth; the ramp lets the guidance on a
        given image grow over the frames and fall over the steps.
    guidance_from, guidance_until: guidance, of either kind, acts in the steps that begin at a time between the two, 1
        being noise and 0 data; the other steps are made with the prompt alone, by one model call.
    schedule: "shifted", the times of the original, or "measured", times that follow from how the model's path bends.
    alpha: replaces the timestep shift that size and duration imply.
    reuse: a row of `skips.CACHES`, by whose rule calls skip the model's blocks, or "none", which is exact.
    reuse_limit: how much may change until they run again; None: the cache's own. reuse_run: calls of a branch that are
        skipped on end, at most. reuse_first: share of the steps ahead that are exact. reuse_lines: whether calls expect
        of the blocks what a line through the last two that ran says, or the same as the last.
    state_fps, motion_score: whether the prompt ends with the frame rate, and with which motion score (1 still, 7 fast).
    caption_form: how it says so, "original" as the original samples, or "training" as captions are in training.
    match_fps: whether given clips are brought down to `fps` by whole factors, as in training; the original takes every
        frame of them.
    put_back: whether the latents of given images replace what was sampled in their place; None does so where a latent
        frame holds one frame (causal autoencoders), as a still latent of several frames would stop the motion.
    drop_padding: for models that saw given images repeated to fill a latent frame: leave out the repeated frames.
    image_*: of the first frame in mode t2i2v.
    """

    mode: str = "t2v"
    resolution: str = "256px"
    aspect_ratio: str = "16:9"
    height: int | None = None
    width: int | None = None
    frames: int = 129
    steps: int = 50
    solver: str = "euler"
    guidance: float = 7.5
    guidance_img: float = 3.0
    text_oscillation: bool = True
    image_oscillation: bool = True
    image_ramp: bool = True  # only for modes that give images, as in the original
    guidance_from: float = 1.0
    guidance_until: float = 0.0
    schedule: str = "shifted"
    shift: bool = True
    alpha: float | None = None
    reuse: str = "none"
    reuse_limit: float | None = None
    reuse_run: int = 3
    reuse_first: float = 0.2
    reuse_lines: bool = True
    negative: str = ""
    fps: int = 24
    caption_form: str = "original"
    state_fps: bool = False
    motion_score: int | None = None
    seed: int = 0
    match_fps: bool = True
    put_back: bool | None = None
    drop_padding: bool = False
    image_resolution: str = "768px"
    image_steps: int = 50
    image_guidance: float = 4.0

    def __post_init__(self):
        if self.mode not in mode_names():
            raise UserError(f"unknown condition mode {self.mode!r}: use one of {', '.join(mode_names())}.")
        if self.solver not in SOLVERS:
            raise UserError(f"unknown solver {self.solver!r}: use one of {', '.join(SOLVERS)}")
        for name in ("steps", "image_steps", "frames", "fps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: sampling needs at least 1")
        for name in ("guidance", "guidance_img", "image_guidance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}: give 0 or more (1 is no guidance)")
        if not 0 <= self.guidance_until < self.guidance_from <= 1:
            raise UserError(
                f"guidance_from {self.guidance_from} and guidance_until {self.guidance_until} are times of sampling: "
                "give the first 1 (noise) or less, the second 0 (data) or more, and less than the first"
            )
        if self.in_part and not self.guided:
            raise UserError("guidance_from and guidance_until say when guidance acts, but there is none: set guidance")
        if self.schedule not in SCHEDULES:
            raise UserError(f"unknown schedule {self.schedule!r}: use one of {', '.join(SCHEDULES)}")
        self._check_cache()
        if self.alpha is not None and not 0 < self.alpha < math.inf:
            raise UserError(f"alpha is {self.alpha}: give a positive shift, or none to follow size and duration")
        if (self.height is None) != (self.width is None):
            raise UserError("give both height and width, or neither and a resolution with an aspect ratio")
        if self.caption_form not in caption.FORMS:
            raise UserError(f"caption_form is {self.caption_form!r}: use one of {', '.join(caption.FORMS)}")
        if self.motion_score is not None and self.motion_score < 0:
            raise UserError(f"motion_score is {self.motion_score}: give 0 or more, such as 1 (still) or 7 (fast)")
        buckets.image_size(self.image_resolution, "1:1", TABLE_MULTIPLE)  # UserError for one that does not exist
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed is {self.seed}: give a number from 0 to 2**63 - 1")

    def told(self, B: int, both: bool) -> np.ndarray:
        """What guidance-distilled models are told of B samples: (B,), or (B, 2) with that on the condition.

        both: whether the model takes both. Without a condition the second is 1.
        """
        image = self.guidance_img if self.condition.references else 1.0
        return np.full((B, 2), (self.guidance, image), np.float32) if both else np.full(B, self.guidance, np.float32)

    def _check_cache(self) -> None:
        if self.reuse not in (skips.NONE, *skips.CACHES):
            raise UserError(f"unknown reuse {self.reuse!r}: use one of {', '.join((skips.NONE, *skips.CACHES))}")
        if self.reuse_limit is not None and not 0 < self.reuse_limit < math.inf:
            raise UserError(f"reuse_limit is {self.reuse_limit}: give a positive one, or none for the rule's own")
        if self.reuse_run < 1 or not 0 <= self.reuse_first <= 1:
            raise UserError(f"reuse_run {self.reuse_run} must be 1 or more, reuse_first {self.reuse_first} from 0 to 1")

    def changed(self, **changes: Unpack["Changes"]) -> "SampleSettings":
        """The settings with `changes`, fields of these, in their place.

        A resolution or an aspect ratio also replaces height and width; UserError where both are given.
        """
        if "resolution" in changes or "aspect_ratio" in changes:
            if changes.get("height") or changes.get("width"):
                raise UserError("give height and width, or a resolution and an aspect ratio, not both")
            changes["height"] = changes["width"] = None
        return replace(self, **changes)

    @property
    def condition(self) -> modes.Mode:
        """What is given to the video model."""
        return modes.of("i2v_head" if self.mode == T2I2V else self.mode)

    @property
    def calibrated(self) -> bool:
        """Whether it takes a curve that `osjax calibrate` measures."""
        return self.schedule != SHIFTED or (self.reuse != skips.NONE and skips.CACHES[self.reuse].calibrated)

    @property
    def bounds(self) -> skips.Bounds:
        """What holds for the cache."""
        own = skips.CACHES[self.reuse].limit if self.reuse_limit is None else self.reuse_limit
        return skips.Bounds(own, self.reuse_run, self.reuse_first)

    @property
    def guided(self) -> bool:
        """Whether there is guidance on text or condition."""
        return self.guidance != 1 or (self.guidance_img != 1 and bool(self.condition.references))

    @property
    def in_part(self) -> bool:
        """Whether guidance acts in a part of the steps alone."""
        return (self.guidance_from, self.guidance_until) != (1, 0)

    def size(self, multiple: int) -> tuple[int, int]:
        """(height, width) in pixels. Sizes of the tables divide by `multiple`; those asked for stay."""
        if self.height is not None and self.width is not None:
            return self.height, self.width
        step = multiple if multiple % TABLE_MULTIPLE == 0 else TABLE_MULTIPLE
        return round_up(*buckets.image_size(self.resolution, self.aspect_ratio, step), multiple)

    def unread(self) -> frozenset[str]:
        """Names of the settings that nothing reads beside the others.

        Those are sizes by name where pixels are given, what is for references where the mode has none, what is for the
        first frame where nobody makes one, and the shift's where there is none.
        """
        names = ["resolution", "aspect_ratio"] if self.height is not None else []
        if self.mode != T2I2V:
            names += [name for name in vars(self) if name.startswith("image_") and name not in OF_REFERENCES]
        if not self.condition.references:
            names += OF_REFERENCES
        if not self.guided:
            names += ["guidance_from", "guidance_until"]
        if self.schedule != SHIFTED:
            names += ["shift", "alpha"]
        if self.reuse == skips.NONE:
            names += ["reuse_limit", "reuse_run", "reuse_first", "reuse_lines"]
        if not self.shift:
            names += ["alpha"]
        return frozenset(names)

    def says(self, prompt: str) -> str:
        """The prompt as the text encoder gets it."""
        return caption.prompt(prompt, self.caption_form, self.fps if self.state_fps else None, self.motion_score)


class Changes(TypedDict, total=False):
    """Fields of SampleSettings by name, for type checkers and editors; `SampleSettings` explains them."""

    mode: str
    resolution: str
    aspect_ratio: str
    height: int | None
    width: int | None
    frames: int
    steps: int
    solver: str
    guidance: float
    guidance_img: float
    text_oscillation: bool
    image_oscillation: bool
    image_ramp: bool
    guidance_from: float
    guidance_until: float
    schedule: str
    shift: bool
    alpha: float | None
    reuse: str
    reuse_limit: float | None
    reuse_run: int
    reuse_first: float
    reuse_lines: bool
    negative: str
    fps: int
    caption_form: str
    state_fps: bool
    motion_score: int | None
    seed: int
    match_fps: bool
    put_back: bool | None
    drop_padding: bool
    image_resolution: str
    image_steps: int
    image_guidance: float


def mode_names() -> tuple[str, ...]:
    """What `mode` can be."""
    return (*modes.MODES, T2I2V)


def round_up(height: int, width: int, multiple: int) -> tuple[int, int]:
    """(height, width) in pixels, each rounded up to a multiple, as the original does (opensora/utils/sampling.py)."""
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple
