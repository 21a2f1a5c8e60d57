"""Given images and clips: read from files, brought to size, cut to what a mode takes, encoded.

Source: Open-Sora opensora/utils/inference.py (collect_references_batch) and opensora/datasets/utils.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from osjax.conditioning import modes
from osjax.data import opened, picture, seek, transforms, workers
from osjax.data.buckets import reduce_fps
from osjax.errors import UserError
from osjax.sampling.autoencoder import Autoencoder, to_float

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
SEPARATOR = ";"  # between the files of one prompt
SECONDS, MEMORY_GB = 300.0, 16.0  # that a file has to be read

One = np.ndarray | Path | str
Given = One | Sequence[One]  # what `load` takes: arrays, paths, or text that names files


def paths(text: str, folder: Path = Path()) -> tuple[Path, ...]:
    """The files that a text such as "a.png;b.mp4" names, taken from `folder` or from where the command runs.

    UserError for a file that is not there or is neither image nor video.
    """
    parts = [part.strip() for part in text.split(SEPARATOR) if part.strip()]
    return tuple(_existing(Path(part), folder) for part in parts)


def _existing(path: Path, folder: Path) -> Path:
    try:
        file = next((p for p in (folder / path, path) if p.is_file()), None)  # an absolute path stays as it is
    except OSError:  # such as a name that is too long
        file = None
    if file is None:
        raise UserError(f"reference {path} does not exist: give a path to an image or a video")
    if path.suffix.lower() not in IMAGES + opened.SUFFIXES:
        raise UserError(
            f"reference {path} is neither an image ({' '.join(IMAGES)}) nor a video ({' '.join(opened.SUFFIXES)})"
        )
    return file


@dataclass(frozen=True)
class Taken:
    """What a mode takes of a given clip.

    frames: how many; None takes all. at: where they begin, as a share of the frames beside them: 0 its first ones, 1
    its last. fps: files of a higher rate are brought down to this one by whole factors, as clips are for training; None
    takes every frame.
    """

    frames: int | None = None
    at: float = 0.0
    fps: float | None = None


def taken(reference: modes.Reference, causal: bool, fps: float | None) -> Taken:
    """What `reference` takes of its clip. causal: whether the autoencoder is. fps: see `Taken`."""
    return Taken(reference.pixel_frames(causal), reference.at, fps)


def read(path: Path, wanted: Taken = Taken()) -> np.ndarray:
    """The frames that are wanted of the file at `path`, uint8 (T, H, W, 3) as a viewer shows them; T = 1 for an image.

    Only those are decoded and held. A file that has fewer gives what it has. UserError for a file that cannot be
    decoded.
    """
    if picture.is_picture(path) or Path(path).suffix.lower() in set(IMAGES) - {".gif"}:  # one that moves is a video
        return picture.read(path)[None]
    with opened.video(path) as (container, stream):
        length, rate = seek.length(container, stream), float(stream.average_rate or 0)
    interval = reduce_fps(rate, wanted.fps)[1] if wanted.fps and rate > 0 else 1
    at = np.arange(0, length.frames, interval)
    if not len(at):
        raise UserError(f"reference {path} holds no frame that decodes: give another")
    count = len(at) if wanted.frames is None else wanted.frames
    start = int(wanted.at * max(0, len(at) - count))
    return seek.decode_at(path, at[start : start + count])


def read_apart(path: Path, wanted: Taken = Taken()) -> np.ndarray:
    """What `read` gives, by a process of its own: a file that ends or stops its decoder ends or stops nothing else.

    path, wanted, UserError: as of `read`.
    """
    try:
        return workers.apart(read, path, wanted, timeout_s=SECONDS, memory_gb=MEMORY_GB)
    except workers.Lost as error:
        raise UserError(f"reference {path} cannot be decoded (it {error}): give another") from error


def load(reference: Given | None, height: int, width: int, wanted: Taken = Taken()) -> tuple[np.ndarray, ...]:
    """The clips (T, height, width, 3) that one prompt is given, scaled until they cover and centre-cropped.

    reference: an array (T, H, W, 3) or (H, W, 3), uint8 or float in [-1, 1]; a path; text like "a.png;b.mp4"; or a
    sequence of these, first the one that gives the head. wanted: what of a file is read. Whole pixels stay uint8.
    UserError for what is none of these.
    """
    if isinstance(reference, str):
        reference = paths(reference)
    if isinstance(reference, list | tuple):
        return tuple(clip for part in reference for clip in load(part, height, width, wanted))
    clip = read_apart(*paths(str(reference)), wanted) if isinstance(reference, Path) else np.asarray(reference)
    clip = clip[None] if clip.ndim == 3 else clip
    if clip.ndim != 4 or clip.shape[-1] != 3 or not len(clip):
        raise UserError(f"a reference has shape {clip.shape}: give frames, height, width and 3 colours")
    if clip.shape[1:3] == (height, width):
        return (clip,)
    if len(clip) == 1 and clip.dtype == np.uint8:
        return (transforms.resize_crop_image(clip[0], height, width)[None],)
    scaled = transforms.resize_crop_clip(clip, height, width)
    return (scaled / 127.5 - 1 if clip.dtype == np.uint8 else scaled,)


def given(
    mode: modes.Mode, reference: Given | None, size: tuple[int, int], causal: bool, fps: float | None = None
) -> dict[str, np.ndarray]:
    """The clip (T, height, width, 3) of every reference of a mode by its name, cut to what it takes.

    reference: what one prompt is given, see `load`; each of the mode's references is read by itself, and no frame that
    it does not take. size: (height, width). causal: whether the autoencoder is. fps: see `Taken`. UserError for a clip
    that has too few frames.
    """
    parts = paths(reference) if isinstance(reference, str) else reference
    parts = list(parts) if isinstance(parts, list | tuple) else [parts]
    clips = {}
    for one in mode.references:
        part = parts[_which(one, len(parts))]
        clips[one.name] = cut(one, load(part, *size, taken(one, causal, fps)), causal)
    return clips


def cut(reference: modes.Reference, clips: Sequence[np.ndarray], causal: bool) -> np.ndarray:
    """The frames that `reference` takes, by its place: the first ones of the first, the last ones of the last, ...

    clips: (T, H, W, 3) each; a reference that is a clip takes its frames from the first of them. causal: whether the
    autoencoder is. UserError for a clip that has too few.
    """
    clip, frames = clips[_which(reference, len(clips))], reference.pixel_frames(causal)
    if len(clip) < frames:
        raise UserError(f"{reference.name} needs {frames} frames, a reference has {len(clip)}: give a longer one")
    return clip[reference.pixel_slice(len(clip), causal)]


def _which(reference: modes.Reference, count: int) -> int:
    """Which of `count` files a reference is taken from: the original reads v2v_tail from the first one, too."""
    return 0 if reference.frames > 1 else int(reference.at * (count - 1))


def encode(clips: Mapping[str, np.ndarray], autoencoder: Autoencoder) -> dict[str, jax.Array]:
    """Normalised latents (1, T, H, W, C) of every reference by its name, each encoded alone.

    clips: what `given` gives. autoencoder: what encodes them.
    """
    return {name: autoencoder.encode(jnp.asarray(to_float(clip))[None]) for name, clip in clips.items()}
