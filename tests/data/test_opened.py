"""Files that would lead FFmpeg elsewhere or fill the memory, beside what plain PyAV does with them."""

import contextlib
import http.server
import io
import os
import threading
import time

import av
import numpy as np
import pytest

from osjax.curation import borders, frames, probe, raw, sample
from osjax.data import opened, seek, video
from osjax.errors import UserError
from osjax.sampling import references

SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
DASH = """<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"
 mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period><AdaptationSet
 mimeType="video/mp4"><Representation id="1" bandwidth="1" width="32" height="32" mimeType="video/mp4">
 <BaseURL>{secret}</BaseURL></Representation></AdaptationSet></Period></MPD>"""
LISTS = {
    "ffconcat": "ffconcat version 1.0\nfile {secret}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
    "dash": DASH,
    "sdp": SDP,
}
NAMES = ("evil.mp4", "evil.mkv", "x.m3u8", "x.ffconcat", "x.mpd", "x.sdp", "x.png", "clip")
READERS = {
    "decode": video.decode,
    "seek": lambda path: seek.decode_at(path, np.zeros(1, int)),
    "probe": probe.measure,
    "inspect": raw.inspect,
    "timed": lambda path: list(frames.timed(path)),
    "uniform": lambda path: sample.uniform({"path": str(path)}, 3),
    "borders": borders.find,
    "reference": references.read,
}


def grey(frames=4, side=32):
    return video.encode(np.full((frames, side, side, 3), 128, np.uint8), 24)


def refused(read, source, within=1.0):
    """The one line with which a reader refuses a source, before a second has passed."""
    began = time.monotonic()
    with pytest.raises(UserError) as error:
        read(source)
    assert time.monotonic() - began < within
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", LISTS)
def test_lists_are_no_videos_whatever_their_name_is_and_whoever_reads_them(kind, tmp_path):
    (tmp_path / "secret.ts").write_bytes(grey())
    text = LISTS[kind].format(secret="secret.ts")
    for name in NAMES:
        path = tmp_path / name
        path.write_text(text)
        for read in READERS.values():
            refused(read, path)
    for read in (video.decode, READERS["seek"]):
        refused(read, text.encode())


@pytest.mark.parametrize("kind, name", [("ffconcat", "evil.mp4"), ("hls", "x.m3u8")])
def test_the_control_plain_pyav_follows_the_list_and_shows_the_other_file(kind, name, tmp_path):
    (tmp_path / "secret.ts").write_bytes(transport_stream())
    (tmp_path / name).write_text(LISTS[kind].format(secret="secret.ts"))
    with av.open(str(tmp_path / name)) as container:
        assert next(container.decode(video=0)).width == 32


def test_the_control_plain_pyav_reads_the_other_file_of_a_dash_description(tmp_path):
    """Where FFmpeg was built with it; else it is no format at all, and nothing is to be refused."""
    if "dash" not in av.formats_available or not av.ContainerFormat("dash").is_input:
        with pytest.raises(av.FFmpegError):
            (tmp_path / "x.mpd").write_text(LISTS["dash"].format(secret="secret.mp4"))
            av.open(str(tmp_path / "x.mpd"))
        return
    (tmp_path / "secret.mp4").write_bytes(fragmented())
    (tmp_path / "x.mpd").write_text(LISTS["dash"].format(secret="secret.mp4"))
    with av.open(str(tmp_path / "x.mpd")) as container:
        assert next(container.decode(video=0)).width == 32
    refused(video.decode, tmp_path / "x.mpd")


def fragmented():
    """An MP4 in pieces, as DASH has them."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}) as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for image in np.full((24, 32, 32, 3), 128, np.uint8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return file.getvalue()


def transport_stream():
    """Of noise, so that FFmpeg knows it for what it is: what lists are usually of."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as out:
        stream = out.add_stream("mpeg2video", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for image in np.random.default_rng(0).integers(0, 255, (24, 32, 32, 3), dtype=np.uint8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return file.getvalue()


def test_the_control_plain_pyav_waits_for_the_network_at_a_session_description():
    """As long as it is let; without a limit of its own it is blocked."""
    began = time.monotonic()
    with contextlib.suppress(av.FFmpegError, OSError):
        av.open(io.BytesIO(SDP.encode()), timeout=2).close()
    assert time.monotonic() - began > 1.5
    refused(video.decode, SDP.encode())


@pytest.fixture
def asked():
    """A web server's address, and the paths that were asked of it."""
    paths = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", paths
    server.shutdown()


@pytest.mark.parametrize("reader", READERS)
def test_a_folder_named_http_is_a_folder(reader, tmp_path, asked, monkeypatch):
    address, paths = asked
    monkeypatch.chdir(tmp_path)
    path = os.path.join("http:", address, "clip.mp4")
    os.makedirs(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(grey(frames=60))
    READERS[reader](references.paths(path)[0])
    assert paths == []
    with pytest.raises((av.FFmpegError, OSError)):  # the control
        av.open(path)
    assert paths == ["/clip.mp4"]


def test_names_with_patterns_and_protocols_are_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("clip%03d.mp4", "concat:a|b.mp4", "file:clip.mp4", "data:text,x.mp4", "-i.mp4", "pipe:0"):
        with open(os.path.join(".", name), "wb") as file:
            file.write(grey())
        assert len(video.decode(name)) == 4


def test_frames_of_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch, tmp_path):
    (tmp_path / "large.mp4").write_bytes(grey(side=64))
    assert len(video.decode(tmp_path / "large.mp4")) == 4
    monkeypatch.setattr(opened, "PIXELS", 64 * 64 - 1)
    for read in READERS.values():
        refused(read, tmp_path / "large.mp4")


def test_a_stream_that_grows_on_the_way_stops_at_the_limit(monkeypatch):
    """Its header states the small size: raw H.264 may change size at any key frame."""
    data = b"".join(raw_h264(side) for side in (32, 128))
    with pytest.raises(UserError, match="changes its size"):
        video.decode(data)
    monkeypatch.setattr(opened, "PIXELS", 64 * 64)
    with opened.video(data) as (container, stream):
        widths = [frame.width for frame in seek._decoded(stream.codec_context, list(container.demux(stream)))]
    assert widths and set(widths) == {32}


def raw_h264(side):
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as out:
        stream = out.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for image in np.full((3, side, side, 3), 128, np.uint8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return file.getvalue()


def test_of_many_streams_and_frames_few_are_looked_at(monkeypatch, tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as out:
        streams = [out.add_stream("mpeg4", rate=24) for _ in range(opened.STREAMS + 8)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for stream in streams:
            out.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            out.mux(stream.encode())
    with opened.video(file.getvalue()) as (container, _):
        assert len(container.streams) == opened.STREAMS
    with av.open(io.BytesIO(file.getvalue())) as container:
        assert len(container.streams) == opened.STREAMS + 8
    monkeypatch.setattr(opened, "FRAMES", 3)
    (tmp_path / "long.mp4").write_bytes(grey(frames=4))
    assert "has more than 3 frames" in refused(probe.measure, tmp_path / "long.mp4")
