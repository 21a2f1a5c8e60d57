"""Pictures, as a viewer shows them: turned as Exif says, 8 bits, transparency over white."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from osjax.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")  # what Pillow may try; none of them leads to other files
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*", b"P5", b"P6", b"GIF8")
PIXELS = 2**28  # of a picture that is still decoded
BACKGROUND = (255, 255, 255)  # what shows through
GREY = ("I;16", "I;16L", "I;16B", "I", "F")  # modes with more than 8 bits


def is_picture(source: Path | str | bytes) -> bool:
    """Whether a file, or its bytes, is a picture and no video, by its first bytes. A GIF that moves is a video."""
    start = source[:16] if isinstance(source, bytes) else _start(Path(source))
    if start.startswith(b"GIF8"):
        with _opened(source) as image:
            return getattr(image, "n_frames", 1) == 1
    return start.startswith(MAGIC) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def read(source: Path | str | bytes) -> np.ndarray:
    """The pixels of a picture as a viewer shows them, uint8 (H, W, 3).

    source: a path, or the bytes of a file. 16-bit and float pictures are scaled to 8 bits, palettes and CMYK become
    colours. UserError in one line for what is no picture, is damaged or too large.
    """
    with _opened(source) as image:
        try:
            upright = ImageOps.exif_transpose(image)
            if upright.mode in GREY:
                return np.repeat(_eight_bits(np.asarray(upright))[..., None], 3, axis=-1)
            if upright.has_transparency_data:
                layered = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", layered.size, BACKGROUND), layered)
            return np.asarray(upright.convert("RGB"))
        except (OSError, ValueError, SyntaxError, MemoryError, EOFError) as error:
            raise UserError(f"{_name(source)} is no readable image ({error}): give another") from error


def _opened(source: Path | str | bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{_name(source)} is no readable image ({error}): give another") from error
    if image.width * image.height > PIXELS:
        raise UserError(f"{_name(source)} has {image.width}x{image.height} pixels, more than are read: make it smaller")
    return image


def _eight_bits(grey_HW: np.ndarray) -> np.ndarray:
    """Grey values of 16 bits, of 32 that hold 16, or floats: from 0 to 1 where none is above, else from 0 to 255."""
    if grey_HW.dtype.kind == "f":
        highest = float(np.nanmax(grey_HW, initial=0.0))
        scale = 255.0 if highest <= 1.0 else 1.0 if highest <= 255.0 else 255.0 / highest
        return np.clip(np.round(np.nan_to_num(grey_HW) * scale), 0, 255).astype(np.uint8)
    return np.clip(np.round(grey_HW.astype(np.float32) / 257.0), 0, 255).astype(np.uint8)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def _name(source: Path | str | bytes) -> str:
    return "image bytes" if isinstance(source, bytes) else str(source)
