"""Goodput of real runs: killed, left alone for a while, started again."""

import signal
import time

import pytest

from osjax.__main__ import main
from osjax.training import goodput, metrics
from tests.e2e import faults
from tests.e2e.started import Started

pytestmark = pytest.mark.timeout(600)
PAUSE_S = 3.0


@pytest.fixture(scope="module")
def killed(two_stages, tmp_path_factory):
    """A run that was killed after step 10 of its second stage, whose checkpoints are 3 steps apart, and went on after
    a pause; the seconds from its first start to its end."""
    folder = tmp_path_factory.mktemp("goodput")
    Started(["--version"], folder / "logs").finish(300)  # whose parent has read the modules by then
    began = time.monotonic()
    process = faults.start(folder / "run", **two_stages)
    process.until(lambda: len(faults.losses(folder / "run").get("stage1_t2v", ())) >= 11)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    at = len(faults.losses(folder / "run")["stage1_t2v"])
    time.sleep(PAUSE_S)
    faults.finish(folder / "run", **two_stages)
    return folder / "run", time.monotonic() - began, at


def test_the_causes_of_a_killed_run_add_up_to_the_wall_time_within_two_percent(killed):
    workdir, took, _ = killed
    spent = goodput.read(workdir / goodput.FILE).spent
    assert sum(spent.values()) == pytest.approx(took, rel=0.02), spent
    assert spent["down"] >= PAUSE_S - 0.1
    assert spent["down"] < PAUSE_S + 2, spent  # a kill takes one line at most
    assert all(spent.get(cause, 0) > 0 for cause in ("step", "start", "prepare", "restore", "compile", "save"))
    assert min(spent.values()) >= 0


def test_steps_that_a_kill_took_are_counted_as_done_again(killed):
    workdir, _, at = killed
    assert at >= 11
    spent = goodput.read(workdir / goodput.FILE).spent
    assert 0 < spent["redone"] < spent["step"]


def test_every_line_of_metrics_has_the_shares_of_all_starts_so_far_and_the_page_shows_them(killed, capsys):
    workdir, _, _ = killed
    lines = metrics.read(workdir / "metrics.jsonl")
    assert all(0 <= line["goodput"] < 1 for line in lines)
    for line in lines[1:]:
        lost = sum(value for name, value in line.items() if name.startswith("lost/"))
        assert line["goodput"] + lost == pytest.approx(1, abs=1e-3)
    assert "lost/down" in lines[-1] and "lost/down" not in lines[0]
    assert main(["report", str(workdir)]) == 0
    page = (workdir / "run.html").read_text()
    assert "Where the time went" in page and "no process at work" in page
