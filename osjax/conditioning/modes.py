"""The condition modes: which frames of a clip are given, and where they come from.

A mode gives *references* at places of the clip: its head, its tail, any place between, or none at all. A reference is
an image or a clip of 32 or 64 frames (one more for causal autoencoders), encoded on its own so that nothing of the rest
of the video leaks into it. The latent of a reference fills as many latent frames at its place.

A mode is a row of `MODES`, and one row more is all that a new mode takes: training, sampling and features on disk read
the table. Here, or from outside before a run or a pipeline is made:

    modes.MODES["i2v_middle"] = (modes.Reference("middle_image", 1, at=0.5),)

Source: Open-Sora opensora/utils/train.py and opensora/utils/inference.py; places between the ends are ours.

causal, time_compression: of the autoencoder, its `Stride`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from osjax.errors import UserError


@dataclass(frozen=True)
class Reference:
    """Something that a mode gives, at a place of the clip.

    name: of its latents, in batches and in features on disk: another place or length takes another name.
    frames: pixel frames, without the extra one of causal autoencoders; 1 is an image.
    at: where it begins, as a share of the frames beside it: 0 is the head, 1 the tail, 0.5 the middle.
    """

    name: str
    frames: int
    at: float

    def __post_init__(self):
        if self.frames < 1 or not 0 <= self.at <= 1:
            raise UserError(
                f"reference {self.name} has {self.frames} frames at {self.at}: give 1 frame or more, and a place from "
                "0, the head, to 1, the tail"
            )

    def pixel_frames(self, causal: bool) -> int:
        """Length of the reference in pixel frames."""
        return self.frames if self.frames == 1 else self.frames + causal

    def latent_frames(self, causal: bool, time_compression: int = 4) -> int:
        """Length of the reference in latent frames."""
        return 1 if self.frames == 1 else self.frames // time_compression + causal

    def pixel_slice(self, num_frames: int, causal: bool) -> slice:
        """Which pixel frames of a clip of `num_frames` it is; all of them where the clip is shorter."""
        length = min(self.pixel_frames(causal), num_frames)
        start = int(self.at * (num_frames - length))
        return slice(start, start + length)

    def latent_slice(self, T: int, causal: bool, time_compression: int = 4) -> slice:
        """Which latent frames of a clip of T it fills, from the one that holds its first pixel frame on.

        All of them where the clip is shorter.
        """
        length = min(self.latent_frames(causal, time_compression), T)
        first = self.pixel_slice((T - causal) * time_compression + causal, causal).start
        # The first latent frame of a causal autoencoder holds one pixel frame, every other `time_compression` of them.
        start = min((first + causal * (time_compression - 1)) // time_compression, T - length)
        return slice(start, start + length)


@dataclass(frozen=True)
class Mode:
    """A row of `MODES`: the name of a condition mode in configs, and what it gives; nothing for text to video."""

    name: str
    references: tuple[Reference, ...]

    @property
    def is_clip(self) -> bool:
        """True for the v2v modes, whose reference is a clip and not an image."""
        return any(reference.frames > 1 for reference in self.references)

    @property
    def is_image(self) -> bool:
        """True for the i2v modes, which give images alone."""
        return bool(self.references) and not self.is_clip

    def fits(self, T: int, causal: bool, time_compression: int = 4) -> bool:
        """Whether a clip of T latent frames is long enough to leave something to generate.

        Modes that give images suit every clip of more than one latent frame, as in the original.
        """
        if not self.references:
            return True
        longest = max(r.latent_frames(causal, time_compression) for r in self.references)
        return T > longest


HEAD_IMAGE = Reference("head_image", 1, at=0)
TAIL_IMAGE = Reference("tail_image", 1, at=1)
HEAD_CLIP = Reference("head_clip", 32, at=0)
TAIL_CLIP = Reference("tail_clip", 32, at=1)
HEAD_CLIP_LONG = Reference("head_clip_long", 64, at=0)
TAIL_CLIP_LONG = Reference("tail_clip_long", 64, at=1)

# Name of a mode -> what it gives.
MODES: dict[str, tuple[Reference, ...]] = {
    "t2v": (),
    "i2v_head": (HEAD_IMAGE,),
    "i2v_tail": (TAIL_IMAGE,),
    "i2v_loop": (HEAD_IMAGE, TAIL_IMAGE),
    "v2v_head": (HEAD_CLIP,),
    "v2v_tail": (TAIL_CLIP,),
    "v2v_head_easy": (HEAD_CLIP_LONG,),
    "v2v_tail_easy": (TAIL_CLIP_LONG,),
}


def index(name: str) -> int:
    """Place of a mode in `MODES`, the number that stands for it in arrays. Raises UserError for an unknown name."""
    if name not in MODES:
        raise UserError(f"unknown condition mode {name!r}: use one of {', '.join(MODES)}.")
    return list(MODES).index(name)


def of(name: str) -> Mode:
    """The mode of this name. Raises UserError for an unknown one."""
    return every()[index(name)]


def every() -> tuple[Mode, ...]:
    """All modes, in the order of the table."""
    return tuple(Mode(name, references) for name, references in MODES.items())


def usable_weights(weights: Mapping[str, float], T: int, causal: bool, time_compression: int = 4) -> dict[str, float]:
    """The modes of `weights` (name -> probability weight) that clips of T latent frames can use. Makes a new dict.

    Raises UserError for an unknown mode, a negative weight, or when no mode is left.
    """
    for name, weight in weights.items():
        index(name)
        if weight < 0:
            raise UserError(f"condition mode {name} has weight {weight}: give 0 or more.")
    if T == 1:  # images are never conditioned
        return {"t2v": 1.0}
    kept = {n: w for n, w in weights.items() if w > 0 and of(n).fits(T, causal, time_compression)}
    if not kept:
        raise UserError(
            f"no condition mode of {', '.join(weights) or 'an empty table'} fits a clip of {T} latent frames: add t2v."
        )
    return kept


def references_of(names: tuple[str, ...] | Mapping[str, float]) -> tuple[Reference, ...]:
    """Every reference that these modes need, each once, in the order of `MODES`."""
    wanted = [r for mode in every() if mode.name in names for r in mode.references]
    return tuple(dict.fromkeys(wanted))
