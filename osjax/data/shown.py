"""Frames as a player shows them: turned, mirrored, stretched to square pixels, and in the colours of a usual screen.

Every reader of videos takes its pixels from here, so that a size in a table, a bucket, a cut and a picture that a model
learns from are those that a person sees. High dynamic range (PQ, HLG) becomes standard range: white at 203 nits, as
ITU-R BT.2408 has it, and what is brighter is white.
"""

import functools

import av
import av.video.reformatter
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

PQ, HLG = 16, 18  # transfer functions by their numbers in ITU-T H.273
HDR = {PQ: "PQ", HLG: "HLG"}
BT709 = 1  # matrix, primaries and transfer have this number, too
WHITE = 203.0  # nits of SDR white in HDR video
# Orientations, see `orientation`, by Exif's numbers.
EXIF = {
    (False, False, False): 1,
    (False, True, False): 2,
    (False, True, True): 3,
    (False, False, True): 4,
    (True, False, False): 5,
    (True, True, False): 6,
    (True, True, True): 7,
    (True, False, True): 8,
}
STRETCH = 8.0  # times that a pixel may be wider than high; what a header claims beyond is not believed
# From BT.2020's primaries to BT.709's, in linear light: ITU-R BT.2087.
TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)


class Viewer:
    """Turns the frames of one video into what is shown. stream: of the video.

    One object for a video's frames: it keeps what it needs to convert them, which costs more to set up than a small
    frame to convert.
    """

    def __init__(self, stream: VideoStream):
        self.stretch = _stretch(stream)
        self._convert = av.video.reformatter.VideoReformatter()

    def size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """(height, width) of a frame as it is shown."""
        height, width = self._square(frame)
        return (width, height) if orientation(frame)[0] else (height, width)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """A frame as uint8 (H, W, 3), 8 bits and standard range whatever the file has."""
        height, width = self._square(frame)
        scaled = {} if (height, width) == (frame.height, frame.width) else {"width": width, "height": height}
        if scaled:
            scaled["interpolation"] = Interpolation.BICUBIC
        transfer = transfer_of(frame)
        if transfer in HDR:
            wide = self._convert.reformat(frame, format="rgb48le", threads=1, **scaled).to_ndarray()
            return turned(_standard(wide, transfer), frame)
        return turned(self._convert.reformat(frame, format="rgb24", threads=1, **scaled).to_ndarray(), frame)

    def plain(self, frame: av.VideoFrame) -> av.VideoFrame:
        """A frame as it is shown, for filters and encoders: BT.709 of limited range, upright, with square pixels.

        A frame that is so already comes back as it is.
        """
        if self.is_plain(frame):
            frame.color_range = ColorRange.MPEG  # what an unstated range means
            return frame
        return limited(_at_time_of(frame, av.VideoFrame.from_ndarray(self(frame), format="rgb24")))

    def is_plain(self, frame: av.VideoFrame) -> bool:
        """Whether a frame is shown just as it is stored."""
        stored = orientation(frame) == (False, False, False) and self.stretch == (1.0, 1.0)
        standard = frame.colorspace == Colorspace.ITU709 and frame.color_range != ColorRange.JPEG
        return stored and standard and transfer_of(frame) not in HDR and frame.format.name == "yuv420p"

    def _square(self, frame: av.VideoFrame) -> tuple[int, int]:
        high, wide = self.stretch
        return round(frame.height * high), round(frame.width * wide)


def limited(frame: av.VideoFrame) -> av.VideoFrame:
    """An RGB frame as yuv420p of BT.709 and limited range, tagged so: what players take a video for.

    The last row or column of an odd size is left out, as 4:2:0 has none.
    """
    made = av.video.reformatter.VideoReformatter().reformat(
        frame,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        dst_color_trc=BT709,
        dst_color_primaries=BT709,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP,
        threads=1,
    )
    made.colorspace, made.color_range = Colorspace.ITU709, ColorRange.MPEG
    return _at_time_of(frame, made)


def _at_time_of(frame: av.VideoFrame, made: av.VideoFrame) -> av.VideoFrame:
    made.pts, made.duration = frame.pts, frame.duration  # without one a filter takes the last frame for the end
    if frame.time_base is not None:
        made.time_base = frame.time_base
    return made


def transfer_of(frame: av.VideoFrame) -> int:
    """Number of a frame's transfer function in ITU-T H.273; 2 where the file does not say."""
    return int(frame.color_trc)


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(rows and columns change places, then left and right do, then top and bottom), by the file's display matrix."""
    for data in frame.side_data:
        if data.type == Type.DISPLAYMATRIX:
            a, b, _, c, d = np.frombuffer(bytes(data), "<i4")[:5].astype(np.int64)
            if abs(b) + abs(c) > abs(a) + abs(d):
                return True, bool(c < 0), bool(b < 0)
            return False, bool(a < 0), bool(d < 0)
    return False, False, False


def exif(frame: av.VideoFrame) -> int:
    """A frame's orientation by the numbers that photos have for it, 1 (as stored) to 8."""
    return EXIF[orientation(frame)]


def transfer_name(frame: av.VideoFrame) -> str:
    """PQ or HLG, the transfer functions of HDR, else SDR."""
    return HDR.get(transfer_of(frame), "SDR")


def range_name(frame: av.VideoFrame) -> str:
    """full or limited, what an unstated range means too."""
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    return "full" if full else "limited"


def turned(image_HWC: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """A picture of a frame, turned and mirrored as the frame's file says. image_HWC: as it is stored."""
    transposed, mirrored, upended = orientation(frame)
    image = image_HWC.transpose(1, 0, 2) if transposed else image_HWC
    image = image[:, ::-1] if mirrored else image
    image = image[::-1] if upended else image
    return np.ascontiguousarray(image) if transposed or mirrored or upended else image


def _stretch(stream: VideoStream) -> tuple[float, float]:
    """Factors of height and width that make pixels square; one of them is 1, the other never shrinks the picture."""
    ratio = float(stream.sample_aspect_ratio or 1)
    if not 1 / STRETCH <= ratio <= STRETCH:
        return 1.0, 1.0
    return (1.0, ratio) if ratio >= 1 else (1 / ratio, 1.0)


def _standard(image_HWC: np.ndarray, transfer: int) -> np.ndarray:
    """HDR pixels, uint16 (H, W, 3) of BT.2020, as uint8 ones of BT.709 with the usual gamma of 2.4."""
    linear = _linear(transfer)[image_HWC]
    if transfer == HLG:  # the scene's light to that of a screen of 1000 nits: BT.2100's system gamma
        luma = linear @ np.array([0.2627, 0.678, 0.0593], np.float32)
        linear = linear * (1000.0 / WHITE) * np.power(np.maximum(luma, 1e-6), 0.2)[..., None]
    narrow = np.clip(linear @ TO_709.T, 0.0, 1.0)
    return _encoded()[(narrow * 4095 + 0.5).astype(np.uint16)]


@functools.cache
def _linear(transfer: int) -> np.ndarray:
    """Light of every 16-bit value: PQ in units of SDR white, HLG in [0, 1] of the scene. ITU-R BT.2100."""
    signal = np.arange(65536) / 65535.0
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        powered = signal ** (1 / m2)
        return (10_000 / WHITE * (np.maximum(powered - c1, 0) / (c2 - c3 * powered)) ** (1 / m1)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@functools.cache
def _encoded() -> np.ndarray:
    """The 8-bit value of each of 4096 steps of light."""
    return np.round(255 * (np.arange(4096) / 4095.0) ** (1 / 2.4)).astype(np.uint8)
