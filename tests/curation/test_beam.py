"""Steps on Apache Beam: what a user sees when something goes wrong there, in this process or another."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from osjax.curation import beam, engine, tables
from osjax.curation.isolate import Limits
from osjax.errors import UserError

pytest.importorskip("apache_beam")
ELSEWHERE = ["--runner=DirectRunner", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]


ROOT = Path(__file__).parents[2]


def refuse(rows, pool):
    raise UserError("the server is away: start it")


def divide(rows, pool):
    return [{**row, "height": 1 // 0} for row in rows]


def name_the_folder(rows, pool):
    return [{**row, "text": str(Path.cwd())} for row in rows]


@pytest.mark.parametrize("options", [[], ELSEWHERE], ids=["here", "elsewhere"])
def test_a_user_s_error_is_its_own_line_without_a_trace(options, tmp_path, capfd):
    tables.write(tmp_path / "in" / "0.parquet", [{"path": "a.mp4", "text": ""}])
    with pytest.raises(UserError) as raised:
        beam.run(engine.Step("step", refuse), tmp_path, ["0.parquet"], Limits(workers=1), options)
    assert str(raised.value) == "the server is away: start it"
    if not options:
        assert "Traceback" not in capfd.readouterr().err


def test_a_runner_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="config.beam: Unexpected pipeline runner: Nonsense") as raised:
        beam.run(engine.Step("step", refuse), tmp_path, ["0.parquet"], Limits(), ["--runner=Nonsense"])
    assert raised.value.status == 2


@pytest.mark.parametrize("options", [[], ELSEWHERE], ids=["here", "elsewhere"])
def test_an_error_of_any_kind_says_its_cause_not_the_beginning_of_a_trace(options, tmp_path):
    tables.write(tmp_path / "in" / "0.parquet", [{"path": "a.mp4", "text": ""}])
    with pytest.raises((RuntimeError, ZeroDivisionError)) as raised:
        beam.run(engine.Step("step", divide), tmp_path, ["0.parquet"], Limits(workers=1), options)
    assert re.search("division( or modulo)? by zero", str(raised.value)) and "Traceback" not in str(raised.value)


def test_the_last_error_of_a_trace_is_its_cause():
    trace = "Traceback\n  File x\nValueError: inner\n\nDuring\nosjax.errors.UserError: outer [while running 's']\n"
    assert beam.cause(trace) == ("osjax.errors.UserError", "outer")
    assert beam.cause("no trace at all") == ("", "")


@pytest.fixture
def cluster(tmp_path):
    """Beam's own job service and a pool of workers, each in a folder of its own; the options of a pipeline on them."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            ports.append(probe.getsockname()[1])
    jobs, workers = ports
    commands = [
        ["apache_beam.runners.portability.local_job_service_main", f"--port={jobs}"],
        ["apache_beam.runners.worker.worker_pool_main", f"--service_port={workers}"],
    ]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # workers run `python`
    env["PYTHONPATH"] = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    started = []
    for name, command in zip(("jobs", "workers"), commands, strict=True):
        (tmp_path / name).mkdir()
        log = (tmp_path / name / "log").open("w")
        words = [sys.executable, "-m", *command]
        started.append(subprocess.Popen(words, cwd=tmp_path / name, env=env, stdout=log, stderr=log))
    end = time.monotonic() + 60
    for port in ports:
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("localhost", port)) == 0:
                    break
            time.sleep(0.2)
    yield [
        "--runner=PortableRunner",
        f"--job_endpoint=localhost:{jobs}",
        "--environment_type=EXTERNAL",
        f"--environment_config=localhost:{workers}",
    ]
    for process in started:
        process.terminate()
    for process in started:
        process.wait(timeout=30)


@pytest.mark.timeout(120)
def test_workers_in_a_folder_of_their_own_write_where_the_step_was_asked_for(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"x")
    tables.write(tmp_path / "t.csv", [{"path": "a.mp4", "text": "a"}] * 3)
    step = engine.Step("step", name_the_folder, shard=2)
    paths = "t.csv", "out.parquet"  # relative ones
    outcome = engine.run(step, *paths, limits=Limits(workers=1), beam_options=cluster)
    assert outcome.kept == 3
    assert {row["text"] for row in tables.read(tmp_path / "out.parquet")} == {str(tmp_path / "workers")}
    assert sorted(p.name for p in (tmp_path / "workers").iterdir()) == ["log"]


@pytest.mark.timeout(120)
def test_a_folder_that_workers_do_not_see_is_named(cluster, tmp_path):
    lost = tmp_path / "lost"
    with pytest.raises(UserError, match=f"{lost} cannot be seen where clips are worked on"):
        beam.run(engine.Step("step", name_the_folder), lost, ["0.parquet"], Limits(workers=1), cluster)
