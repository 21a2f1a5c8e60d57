"""launch/supervise.py over real processes: which exit statuses it restarts, when, and what a signal does."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

SUPERVISE = Path(__file__).parents[1] / "launch" / "supervise.py"

# A command that appends the time to a file and exits with the next of the statuses given, the last for ever.
JOB = """
import os, sys, time
log, statuses = sys.argv[1], [int(s) for s in sys.argv[2:] if not s.startswith("--")]
done = open(log).read().count("\\n") if os.path.exists(log) else 0
print(time.time(), file=open(log, "a"))
status = statuses[min(done, len(statuses) - 1)]
if gains := os.environ.get("GAINS"):  # lines of metrics that each run leaves in all
    count = int(gains.split()[min(done, len(gains.split()) - 1)])
    os.makedirs(os.environ["RUN"], exist_ok=True)
    open(os.environ["RUN"] + "/metrics.jsonl", "w").write("{}\\n" * count)
os.kill(os.getpid(), -status) if status < 0 else sys.exit(status)
"""


def supervise(tmp_path, *statuses, failures=3, backoff=0.2, steady=1000, gains=""):
    """(exit status, times between starts, what it said). gains: lines of metrics after each run."""
    (tmp_path / "job.py").write_text(JOB)
    options = [f"--failures={failures}", f"--backoff={backoff}", "--most=0.4", f"--steady={steady}"]
    job = [sys.executable, str(tmp_path / "job.py"), str(tmp_path / "log"), *map(str, statuses)]
    run = [f"--workdir={tmp_path / 'run'}"] if gains else []
    command = [sys.executable, str(SUPERVISE), *options, "--", *job, *run]
    env = {**os.environ, "GAINS": gains, "RUN": str(tmp_path / "run")}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    starts = [float(line) for line in (tmp_path / "log").read_text().splitlines()]
    return result.returncode, [b - a for a, b in zip(starts, starts[1:], strict=False)], result.stderr


@pytest.mark.parametrize("status", [0, 2])
def test_done_and_usage_errors_are_never_restarted(tmp_path, status):
    assert supervise(tmp_path, status) == (status, [], "")


def test_a_preempted_run_starts_again_at_once_and_a_failed_one_after_a_back_off_that_doubles(tmp_path):
    status, between, said = supervise(tmp_path, 75, 1, 1, 0, backoff=2.0)  # cut to --most=0.4
    assert status == 0 and len(between) == 3
    assert "status 75" in said and "again in 0 s" in said.splitlines()[0]
    (tmp_path / "log").unlink()
    status, between, _ = supervise(tmp_path, 1, 1, 0)
    assert status == 0 and between[0] >= 0.2 and between[1] >= 0.4


def test_too_many_short_runs_in_a_row_end_with_the_last_status(tmp_path):
    status, between, said = supervise(tmp_path, 7, failures=2, backoff=0.01)
    assert (status, len(between)) == (7, 2) and "giving up" in said


def test_runs_that_last_are_no_failures_in_a_row(tmp_path):
    status, between, _ = supervise(tmp_path, 1, 1, 1, 1, 0, failures=1, backoff=0.01, steady=0)
    assert (status, len(between)) == (0, 4)


def test_a_run_that_fails_at_the_same_step_for_ever_is_given_up_however_long_it_takes(tmp_path):
    status, between, said = supervise(tmp_path, 1, failures=2, backoff=0.01, steady=0, gains="5 9 9 7 9 9")
    assert (status, len(between)) == (1, 4) and "3 runs in a row gained nothing: giving up" in said


def test_a_run_that_gains_steps_goes_on_however_short_it_is(tmp_path):
    status, between, _ = supervise(tmp_path, 1, 1, 1, 1, 0, failures=1, backoff=0.01, gains="1 1 2 2 3")
    assert (status, len(between)) == (0, 4)
    (tmp_path / "log").unlink()  # the control: the same runs, gaining nothing
    assert supervise(tmp_path, 1, 1, 1, 1, 0, failures=1, backoff=0.01, gains="3")[0] == 1


@pytest.mark.parametrize("words, path", [(["--workdir=a"], "a"), (["--workdir", "b"], "b"), (["x"], None)])
def test_the_metrics_of_a_command_are_found_in_its_words(words, path):
    spec = spec_from_file_location("supervise", SUPERVISE)
    supervise = module_from_spec(spec)
    spec.loader.exec_module(supervise)
    assert supervise.metrics_of(["osjax", "train", *words]) == (path and Path(path) / "metrics.jsonl")


def test_a_killed_run_counts_as_failed(tmp_path):
    status, between, said = supervise(tmp_path, -9, 0)
    assert (status, len(between)) == (0, 1) and "status 137" in said


def test_sigterm_goes_on_to_the_command_and_nothing_is_restarted(tmp_path):
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print('up', flush=True); time.sleep(60)"
    )
    command = [sys.executable, str(SUPERVISE), "--", sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "up\n"
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == os.EX_TEMPFAIL
        assert time.monotonic() - started < 20
    finally:
        process.kill()


def test_no_command_and_a_command_that_is_not_there_are_usage_errors():
    for argv, words in (([], "no command given"), (["--", "/no/such/program"], "No such file")):
        result = subprocess.run([sys.executable, str(SUPERVISE), *argv], capture_output=True, text=True)
        assert result.returncode == 2 and words in result.stderr
