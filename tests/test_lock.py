"""One writer at a time: real processes that ask for the same folder, are killed and are followed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from osjax import lock
from osjax.errors import UserError

HOLDER = """
import sys, time
from osjax import lock
with lock.held(sys.argv[1], "osjax train"):
    print("holds", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def holder(folder, code=HOLDER):
    """A process that holds a folder until the block ends."""
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "holds\n"
        try:
            yield process
        finally:
            process.kill()


def take(folder):
    with lock.held(folder, "osjax train"):
        pass


def test_the_second_process_is_told_who_the_first_is_and_the_third_follows_a_kill(tmp_path):
    with holder(tmp_path) as first:
        with pytest.raises(UserError, match=rf"in use by osjax train, process {first.pid} on \S+ since 20") as refused:
            take(tmp_path)
        assert refused.value.status == 2 and "\n" not in str(refused.value)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert (tmp_path / lock.OWNER).exists()  # it had no time to take its name away
        began = time.monotonic()
        take(tmp_path)
        assert time.monotonic() - began < 1
    assert os.listdir(tmp_path) == []


def test_a_folder_that_was_made_for_the_lock_goes_with_it_if_nothing_is_in_it(tmp_path):
    with pytest.raises(KeyError), lock.held(tmp_path / "empty", "osjax train"):
        raise KeyError
    with lock.held(tmp_path / "used", "osjax train"):
        (tmp_path / "used" / "file").touch()
    assert os.listdir(tmp_path) == ["used"] and os.listdir(tmp_path / "used") == ["file"]


def test_of_many_that_ask_at_once_one_has_it(tmp_path):
    """Each holds it for a moment and writes when; no two of these times overlap."""
    code = """
import sys, time
from osjax import lock
from osjax.errors import UserError
end = time.monotonic() + 2
while time.monotonic() < end:
    try:
        with lock.held(sys.argv[1] + "/held", "x"):
            a = time.monotonic_ns()
            time.sleep(0.005)
            print(a, time.monotonic_ns())
    except UserError:
        pass
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=60)[0] for process in started]
    times = sorted(tuple(map(int, line.split())) for out in said for line in out.splitlines())
    assert len(times) > 20 and sum(bool(out) for out in said) > 1
    assert all(before[1] <= after[0] for before, after in zip(times, times[1:], strict=False))


@pytest.fixture
def no_kernel_locks(monkeypatch):
    """As on a mounted bucket: the call is not known there. A second of silence is enough for a test."""

    def flock(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    monkeypatch.setattr(lock, "SETTLE_S", 0.05)


WITHOUT = HOLDER.replace(
    "with lock",
    """def flock(file, how):
    raise OSError(95, "Operation not supported")
lock.fcntl.flock, lock.SETTLE_S, lock.BEAT_S = flock, 0.05, 0.2
with lock""",
)


def test_where_the_file_system_has_no_locks_the_owner_s_file_says_whose_it_is(tmp_path, no_kernel_locks):
    with holder(tmp_path, WITHOUT) as first:
        with pytest.raises(UserError, match=f"process {first.pid} on"):
            take(tmp_path)
        first.send_signal(signal.SIGKILL)
        first.wait()
        take(tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_owner_on_another_machine_is_waited_for_until_it_counts_up_or_is_silent(tmp_path, monkeypatch):
    """Which this machine's kernel knows nothing of."""
    monkeypatch.setattr(lock, "SILENT_S", 1.5)
    path = tmp_path / lock.OWNER
    far = {"token": "t", "doing": "osjax train", "host": "far", "pid": 1, "since": "then", "kernel": "other", "beat": 0}
    far |= {"started": "", "pids": ""}
    path.write_text(json.dumps(far))
    beats = "import json,sys,time\nfor n in range(100):\n p=sys.argv[1]; d=json.load(open(p)); d['beat']+=1\n"
    beats += " open(p+'.new','w').write(json.dumps(d)); __import__('os').replace(p+'.new',p); time.sleep(.3)"
    with subprocess.Popen([sys.executable, "-c", beats, str(path)]) as other:
        with pytest.raises(UserError, match="process 1 on far since then"):
            take(tmp_path)
        other.kill()
    began = time.monotonic()
    take(tmp_path)
    assert time.monotonic() - began > 1.4


def test_a_process_that_slept_while_another_took_over_ends_instead_of_writing(tmp_path, no_kernel_locks):
    with holder(tmp_path, WITHOUT) as first:
        first.send_signal(signal.SIGSTOP)
        told = json.loads((tmp_path / lock.OWNER).read_text())
        (tmp_path / lock.OWNER).write_text(json.dumps({**told, "token": "another's"}))
        first.send_signal(signal.SIGCONT)
        assert first.wait(20) == os.EX_TEMPFAIL
    assert json.loads((tmp_path / lock.OWNER).read_text())["token"] == "another's"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/below cannot be written \(Not a directory\)"):
        take(tmp_path / "file" / "below")
    with pytest.raises(UserError, match="/proc/below cannot be written"):
        take("/proc/below")


def test_an_owner_s_file_that_is_damaged_names_nobody_and_holds_nothing(tmp_path):
    for text in ("", "{", "[1]", '{"token": 3}', "\0" * 100):
        (tmp_path / lock.OWNER).write_text(text)
        take(tmp_path)
    assert not re.search("osjax", "".join(os.listdir(tmp_path)))
