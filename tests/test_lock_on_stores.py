"""The lock on object stores, as servers on this machine speak S3 and GCS: the owner's file is all there is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from osjax import lock
from osjax.errors import UserError
from tests import object_stores

NEEDED = {"s3": ("moto.server", "s3fs"), "gcs": ("gcp_storage_emulator.server", "gcsfs")}
HOLDER = """
import sys, time
from osjax import lock
lock.BEAT_S, lock.SETTLE_S = 0.5, 0.3
with lock.held(sys.argv[1], "osjax train"):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module", params=NEEDED)
def store(request):
    for name in NEEDED[request.param]:
        pytest.importorskip(name)
    with getattr(object_stores, request.param)() as (_, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(lock, "SILENT_S", 4.0)
        patch.setattr(lock, "SETTLE_S", 0.3)
        yield {"s3": "s3://bucket", "gcs": "gs://bucket"}[request.param]


def take(folder):
    with lock.held(folder, "osjax train"):
        pass


def test_an_owner_that_beats_is_left_alone_and_one_that_was_killed_is_followed(store):
    folder = f"{store}/killed"
    command = [sys.executable, "-c", HOLDER, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as first:
        try:
            assert first.stdout.readline() == "holds\n"
            with pytest.raises(UserError, match=f"in use by osjax train, process {first.pid} on") as refused:
                take(folder)
            assert refused.value.status == 2
            first.send_signal(signal.SIGKILL)
            first.wait()
        finally:
            first.kill()
    take(folder)


def test_another_machines_owner_is_waited_for_and_passed_over_once_it_is_silent(store, monkeypatch):
    folder = f"{store}/other"
    command = [sys.executable, "-c", HOLDER, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as first:
        try:
            assert first.stdout.readline() == "holds\n"
            monkeypatch.setattr(lock, "_kernel", lambda: "another machine")
            with pytest.raises(UserError, match="in use by"):  # its count rises
                take(folder)
            first.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            take(folder)
            assert time.monotonic() - began >= lock.SILENT_S
        finally:
            first.kill()
