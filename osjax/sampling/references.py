"""Given images and clips: read from files, brought to size, cut to what a mode takes, encoded.

Source: Open-Sora opensora/utils/inference.py (collect_references_batch) and opensora/datasets/utils.py.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, UnidentifiedImageError

from osjax.conditioning import modes
from osjax.data import transforms, video
from osjax.errors import UserError
from osjax.sampling.autoencoder import Autoencoder, to_float

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg")
SEPARATOR = ";"  # between the files of one prompt

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
        found = next((p for p in (folder / path, path) if p.is_file()), None)  # an absolute path stays as it is
    except OSError:  # such as a name that is too long
        found = None
    if found is None:
        raise UserError(f"reference {path} does not exist: give a path to an image or a video")
    if path.suffix.lower() not in IMAGES + VIDEOS:
        raise UserError(f"reference {path} is neither an image ({' '.join(IMAGES)}) nor a video ({' '.join(VIDEOS)})")
    return found


def read(path: Path) -> np.ndarray:
    """The frames of the file at `path`, uint8 (T, H, W, 3), T = 1 for an image.

    UserError for a file that cannot be decoded.
    """
    if Path(path).suffix.lower() in VIDEOS:
        return video.decode(path)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))[None]
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"reference {path} is no readable image ({error}): give another") from error


def load(reference: Given, height: int, width: int) -> tuple[np.ndarray, ...]:
    """The clips (T, height, width, 3) that one prompt is given, scaled until they cover and centre-cropped.

    reference: an array (T, H, W, 3) or (H, W, 3), uint8 or float in [-1, 1]; a path; text like "a.png;b.mp4"; or a
    sequence of these, first the one that gives the head. Whole pixels stay uint8. UserError for what is none of these.
    """
    if isinstance(reference, str):
        reference = paths(reference)
    if isinstance(reference, list | tuple):
        return tuple(clip for part in reference for clip in load(part, height, width))
    clip = read(*paths(str(reference))) if isinstance(reference, Path) else np.asarray(reference)
    clip = clip[None] if clip.ndim == 3 else clip
    if clip.ndim != 4 or clip.shape[-1] != 3 or not len(clip):
        raise UserError(f"a reference has shape {clip.shape}: give frames, height, width and 3 colours")
    if clip.shape[1:3] == (height, width):
        return (clip,)
    if len(clip) == 1 and clip.dtype == np.uint8:
        return (transforms.resize_crop_image(clip[0], height, width)[None],)
    scaled = transforms.resize_crop_clip(clip, height, width)
    return (scaled / 127.5 - 1 if clip.dtype == np.uint8 else scaled,)


def cut(reference: modes.Reference, clips: Sequence[np.ndarray], causal: bool) -> np.ndarray:
    """The frames that `reference` takes, by its place: the first ones of the first clip, the last ones of the last, ...

    clips: (T, H, W, 3) each. causal: whether the autoencoder is. UserError for a clip that has too few.
    """
    clip, frames = clips[int(reference.at * (len(clips) - 1))], reference.pixel_frames(causal)
    if len(clip) < frames:
        raise UserError(f"{reference.name} needs {frames} frames, a reference has {len(clip)}: give a longer one")
    return clip[reference.pixel_slice(len(clip), causal)]


def encode(mode: modes.Mode, clips: Sequence[np.ndarray], autoencoder: Autoencoder) -> dict[str, jax.Array]:
    """Normalised latents (1, T, H, W, C) of every reference of the mode by its name, each encoded alone.

    clips: what `load` gives. autoencoder: what encodes them. UserError: see `cut`.
    """
    return {
        reference.name: autoencoder.encode(jnp.asarray(to_float(cut(reference, clips, autoencoder.causal)))[None])
        for reference in mode.references
    }
