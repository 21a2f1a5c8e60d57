"""Videos are read as a player shows them. What is right follows from what was drawn, not from the reader."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

import osjax
from osjax.curation import frames, probe
from osjax.data import opened, seek, shown, video
from osjax.errors import UserError
from tests.data import odd_videos

RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 200, 60), (30, 120, 200), (128, 128, 128)


def corners(height=48, width=80) -> np.ndarray:
    """Four quarters of four colours: no two of the eight orientations look alike."""
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, GREY
    return image


# What each orientation of Exif does to a picture, by its definition, and the display matrix (a, b, c, d) that says so.
ORIENTATIONS = {
    1: (lambda x: x, (1, 0, 0, 1)),
    2: (lambda x: x[:, ::-1], (-1, 0, 0, 1)),
    3: (lambda x: x[::-1, ::-1], (-1, 0, 0, -1)),
    4: (lambda x: x[::-1], (1, 0, 0, -1)),
    5: (lambda x: x.transpose(1, 0, 2), (0, 1, 1, 0)),
    6: (lambda x: np.rot90(x, -1), (0, 1, -1, 0)),
    7: (lambda x: x[::-1, ::-1].transpose(1, 0, 2), (0, -1, -1, 0)),
    8: (lambda x: np.rot90(x), (0, -1, 1, 0)),
}


def middles(image: np.ndarray) -> np.ndarray:
    """Colours at the middles of the four quarters."""
    H, W, _ = image.shape
    return np.array([image[y, x] for y in (H // 4, 3 * H // 4) for x in (W // 4, 3 * W // 4)], int)


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_a_clip_of_a_phone_is_seen_as_it_was_held(number, tmp_path):
    turn, matrix = ORIENTATIONS[number]
    path = tmp_path / "phone.mp4"
    path.write_bytes(odd_videos.with_matrix(video.encode(np.stack([corners()] * 4), 24, crf=4), *matrix))
    want = turn(corners())
    measured = probe.measure(path)
    assert (measured["height"], measured["width"]) == want.shape[:2]
    seen = {
        "whole": video.decode(path)[0],
        "by place": seek.decode_at(path.read_bytes(), np.array([1]))[0],
        "in filters": next(frames.timed(path))[1].to_ndarray(format="rgb24"),
    }
    for how, image in seen.items():
        assert image.shape == want.shape, how
        assert np.abs(middles(image) - middles(want)).max() <= 6, how
        if number > 1:  # the control: as it is stored it would be wrong
            assert image.shape != corners().shape or np.abs(middles(image) - middles(corners())).max() > 40
    with opened.video(path) as (container, stream):
        assert shown.exif(next(container.decode(stream))) == number


@pytest.mark.parametrize(
    "ratio, size", [((64, 45), (48, 114)), ((8, 9), (54, 80)), ((1, 1), (48, 80)), ((1, 99), (48, 80))]
)
def test_pixels_that_are_not_square_are_stretched_never_shrunk(ratio, size, tmp_path):
    path = tmp_path / "dvd.mp4"
    path.write_bytes(coded([corners()] * 4, aspect=ratio))
    measured = probe.measure(path)
    assert (measured["height"], measured["width"]) == size == video.decode(path).shape[1:3]
    assert np.abs(middles(video.decode(path)[0]) - middles(corners())).max() <= 8
    assert next(frames.timed(path))[1].height == size[0]


def coded(images, fmt="yuv420p", codec="libx264", aspect=None, container="mp4", **tags) -> bytes:
    """A file of RGB images. tags: colorspace, color_range, color_trc, color_primaries of the stream."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=24, options={"crf": "4"} if codec == "libx264" else {"qscale": "1"})
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], fmt
        if aspect:
            stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            wanted = {"dst_colorspace": tags.get("colorspace"), "dst_color_range": tags.get("color_range")}
            out.mux(stream.encode(frame.reformat(format=fmt, **{k: v for k, v in wanted.items() if v is not None})))
        out.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize(
    "form",
    [
        {"colorspace": Colorspace.ITU709, "color_range": ColorRange.MPEG},
        {"colorspace": Colorspace.ITU709, "color_range": ColorRange.JPEG},
        {"colorspace": Colorspace.ITU601, "color_range": ColorRange.MPEG},
        {"colorspace": Colorspace.ITU601, "color_range": ColorRange.JPEG},
        {"fmt": "yuvj420p", "codec": "mjpeg", "container": "avi", "color_range": ColorRange.JPEG},
        {"fmt": "yuv444p"},
        {},
    ],
)
def test_colours_come_through_whatever_their_range_and_matrix(form, tmp_path):
    path = tmp_path / "clip.bin"
    path.write_bytes(coded([corners()] * 4, **form))
    for image in (video.decode(path)[1], next(frames.timed(path))[1].to_ndarray(format="rgb24")):
        assert np.abs(middles(image) - middles(corners())).max() <= 6


def test_written_clips_say_their_colours_and_show_them_to_players_that_believe_it():
    data = video.encode(np.stack([corners()] * 4), 24, crf=4)
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)
        assert (int(context.color_primaries), int(context.color_trc)) == (1, 1)
        planes = frame.to_ndarray(format="yuv420p").astype(float)
    H, W = frame.height, frame.width
    chroma = planes[H:].reshape(2, H // 2, W // 2)
    y, u, v = (planes[H // 4, W // 4] - 16) * 255 / 219, *((c[H // 8, W // 8] - 128) * 255 / 224 for c in chroma)
    bt709 = np.array([y + 1.5748 * v, y - 0.1873 * u - 0.4681 * v, y + 1.8556 * u])
    bt601 = np.array([y + 1.402 * v, y - 0.3441 * u - 0.7141 * v, y + 1.772 * u])
    assert np.abs(bt709 - RED).max() <= 4 < np.abs(bt601 - RED).max()


def hdr(levels, transfer: int) -> bytes:
    """Stripes of grey as 10-bit BT.2020 video. levels: of the signal, from 0 to 1."""
    H, W = 64, 32 * len(levels)
    luma = np.repeat(np.round(64 + 876 * np.asarray(levels)), 32).astype(np.uint16)[None].repeat(H, 0)
    planes = np.concatenate([luma.ravel(), np.full(H * W // 2, 512, np.uint16)]).reshape(H * 3 // 2, W)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=24, options={"crf": "2"})
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_trc, context.color_primaries = 9, 1, transfer, 9
        for _ in range(3):
            frame = av.VideoFrame(W, H, "yuv420p10le")
            for plane, part in zip(frame.planes, (planes[:H], *planes[H:].reshape(2, H // 2, W // 2)), strict=True):
                rows = np.zeros((part.shape[0], plane.line_size // 2), "<u2")
                rows[:, : part.shape[1]] = part
                plane.update(rows.tobytes())
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


def pq(nits):
    powered = (np.asarray(nits) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * powered) / (1 + 18.6875 * powered)) ** 78.84375


def test_greys_of_a_pq_video_are_those_of_a_usual_screen_and_highlights_are_white():
    greys = np.array([0, 64, 128, 192, 255])
    data = hdr(pq(203 * (np.append(greys, 400) / 255) ** 2.4), shown.PQ)
    seen = video.decode(data)[1][32, 16::32].mean(-1)
    assert np.abs(seen[:5] - greys).max() <= 4 and seen[5] >= 253
    plain = video.decode(hdr(pq(203 * (np.append(greys, 400) / 255) ** 2.4), transfer=1))[1][32, 16::32].mean(-1)
    assert np.abs(plain[:5] - greys).max() > 40  # the control: read as if it were standard range


def test_three_quarters_of_an_hlg_signal_are_white(tmp_path):
    (tmp_path / "hlg.mp4").write_bytes(hdr([0.0, 0.375, 0.75, 1.0], shown.HLG))
    black, middle, white, highlight = video.decode(tmp_path / "hlg.mp4")[1][32, 16::32].mean(-1)
    assert black <= 2 and white >= 250 and highlight >= 253
    scene = 0.375**2 / 3
    assert middle == pytest.approx(255 * (1000 / 203 * scene**1.2) ** (1 / 2.4), abs=4)


def test_frames_before_an_edit_list_s_start_are_neither_counted_nor_shown(tmp_path):
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(odd_videos.grey(72, times=list(range(-12, 60)), gop=72))
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 72  # what the header counts
    decoded = video.decode(path)
    assert probe.measure(path)["num_frames"] == len(decoded) == 60
    assert odd_videos.numbers(seek.decode_at(path, np.arange(27, 60)))[-1] == odd_videos.numbers(decoded)[-1]


@pytest.mark.parametrize("share", [0.35, 0.6, 0.85])
def test_of_a_file_that_was_cut_off_only_what_decodes_is_counted(share, tmp_path):
    path = tmp_path / "cut.mp4"
    whole = odd_videos.first_index(odd_videos.noise(48))
    path.write_bytes(whole[: int(share * len(whole))])
    count = probe.measure(path)["num_frames"]
    assert 0 < count < 48
    assert len(seek.decode_at(path, np.arange(count))) == count
    with opened.video(path) as (container, stream):
        assert not seek.length(container, stream).whole
    path.write_bytes(whole)
    with opened.video(path) as (container, stream):
        assert seek.length(container, stream) == seek.Length(48, True)


@pytest.mark.parametrize("container, codec", [("mpegts", "libx264"), ("mpeg", "mpeg2video"), ("h264", "libx264")])
def test_streams_whose_headers_count_nothing_are_whole(container, codec, tmp_path):
    path = tmp_path / "stream.bin"
    path.write_bytes(coded([corners()] * 36, container=container, codec=codec))
    with opened.video(path) as (container, stream):
        assert seek.length(container, stream) == seek.Length(36, True)
    assert probe.measure(path)["num_frames"] == 36


@pytest.mark.parametrize(
    "name, text",
    [
        ("evil.mp4", "ffconcat version 1.0\nfile {secret}\n"),
        ("x.m3u8", "#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n"),
        ("stream.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"),
    ],
)
def test_a_list_that_names_other_files_is_no_video(name, text, tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(video.encode(np.stack([corners()] * 4), 24))
    (tmp_path / name).write_text(text.format(secret=secret.name))
    for source in (tmp_path / name, (tmp_path / name).read_bytes()):
        with pytest.raises(UserError, match="cannot be decoded"):
            video.decode(source)
    with av.open(str(secret)) as container:  # the control: what it leads to is a video
        assert next(container.decode(video=0))


def test_av_open_stands_in_one_file_for_reading():
    reads = {
        path.name
        for path in Path(osjax.__file__).parent.rglob("*.py")
        for line in path.read_text().splitlines()
        if "av.open(" in line and '"w"' not in line
    }
    assert reads == {"opened.py"}
