"""The one opener of videos: files and bytes of unknown origin, through FFmpeg's real containers and nothing else.

FFmpeg can open far more than videos: lists that name other files, session descriptions, addresses. Here a file is a
container or an image, and leads nowhere else.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from osjax.errors import UserError

# Demuxers by FFmpeg's names: containers of video, raw streams of it, and images. None of them opens a second file.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,asf,ogg,nut,mxf,"
    "gif,apng,image2pipe,png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe,jpegxl_pipe,mjpeg,y4m,yuv4mpegpipe,rm,dv"
)
# Ends of names that videos have, for folders to be searched and files to be told apart; the content decides.
SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".vob"),
    *(".m2v", ".h264", ".264", ".h265", ".hevc", ".265", ".ivf", ".flv", ".wmv", ".asf", ".ogv", ".mxf", ".y4m", ".dv"),
)
SIDE = 16384  # pixels of a frame's side that are still decoded
PIXELS = 2**26  # of a frame, those of pictures in other streams too: 8192 x 8192
STREAMS = 32  # of a file; those that follow are not looked at
FRAMES = 2_000_000  # of a video, a day at 24 per second: their times are held in memory
# What a damaged or hostile file raises inside the decoders, besides FFmpeg's own errors.
BROKEN = (av.FFmpegError, OSError, ValueError, LookupError, MemoryError, ArithmeticError)


@contextlib.contextmanager
def video(source: Path | str | bytes, threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and the video stream of a file, closed when the block ends.

    source: a path, or the bytes of a file. threads: of the decoder; one, as callers work on several files. UserError in
    one line, naming the file, for what is no video, does not decode or is too large a picture.
    """
    name = name_of(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else str(Path(source).absolute())
    most = {"max_pixels": str(PIXELS)}  # of every frame: headers may state less than comes
    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file", "max_streams": str(STREAMS), **most}
    try:
        with av.open(file, options=options) as container:
            # A cover picture of a file of music is no video.
            streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
            if not streams or streams[0].codec_context is None:
                raise UserError(f"{name} holds no video: remove it from the table")
            stream = streams[0]
            if max(stream.width, stream.height) > SIDE or stream.width * stream.height > PIXELS:
                size = f"{stream.width}x{stream.height}"
                raise UserError(f"{name} has frames of {size}: {SIDE} pixels a side at most, and {PIXELS} in all")
            stream.codec_context.thread_count, stream.codec_context.options = threads, most
            yield container, stream
    except BROKEN as error:
        raise UserError(f"{name} cannot be decoded ({error}): remove it from the table or make it anew") from error


def name_of(source: Path | str | bytes) -> str:
    """What a message calls a source."""
    return "video bytes" if isinstance(source, bytes) else str(source)
