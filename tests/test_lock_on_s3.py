"""The lock on an object store, S3 as moto's server speaks it: the owner's file is all there is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from osjax import lock
from osjax.errors import UserError

moto = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")
HOLDER = """
import sys, time
from osjax import lock
lock.BEAT_S, lock.SETTLE_S = 0.5, 0.3
with lock.held(sys.argv[1], "osjax train"):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def store():
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    given = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in {**given, "DEFAULT_REGION": "us-east-1"}.items():
        patch.setenv(f"AWS_{name}", value)
    patch.setattr(lock, "SILENT_S", 4.0)
    patch.setattr(lock, "SETTLE_S", 0.3)
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket"
    patch.undo()
    server.stop()


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
