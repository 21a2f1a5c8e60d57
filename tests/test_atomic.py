"""Files that are written whole or not at all."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from osjax import atomic

WRITER = """
import os, sys, time
from osjax import atomic
with atomic.complete(sys.argv[1]) as partial:
    partial.write_text("half")
    print(partial, flush=True)
    time.sleep(600)
"""


def test_a_file_appears_under_its_name_when_it_is_finished(tmp_path):
    path = tmp_path / "new" / "file.json"
    with atomic.complete(path) as partial:
        partial.write_text("whole")
        assert not path.exists() and partial.parent == path.parent
    assert path.read_text() == "whole" and os.listdir(path.parent) == ["file.json"]


def test_an_error_leaves_what_was_there_and_nothing_beside(tmp_path):
    path = tmp_path / "file.json"
    atomic.write_text(path, "old")
    with pytest.raises(OSError, match="disk is full"), atomic.complete(path) as partial:
        partial.write_text("half")
        raise OSError("disk is full")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]


def test_a_writer_that_is_killed_leaves_what_was_there(tmp_path):
    path = tmp_path / "weights.safetensors"
    atomic.write_bytes(path, b"old")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        partial = writer.stdout.readline().strip()
        writer.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old" and open(partial).read() == "half"
    assert list(tmp_path.glob("*.safetensors")) == [path]  # what is left passes for nothing else
    atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, texts = tmp_path / "file", ["a" * 100_000, "b" * 100_000]
    atomic.write_text(path, texts[0])
    writer = threading.Thread(target=lambda: [atomic.write_text(path, texts[n % 2]) for n in range(40)])
    writer.start()
    seen = set()
    while writer.is_alive():
        seen.add(path.read_text())
    writer.join()
    assert seen <= set(texts)


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path):
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(target)
    atomic.write_text(link, "text")
    assert link.is_symlink() and target.read_text() == "text"
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: seen.append(pipe.read_text()))
    seen = []
    reader.start()
    atomic.write_text(pipe, "through")
    reader.join()
    assert seen == ["through"] and pipe.is_fifo()
