"""A few of the hostile files that `python -m tests.measures.hostile` tries by the thousand, and that traps are felt."""

import importlib
import os
import sys
import urllib.error
import urllib.request

import pytest

from tests import hostile_files
from tests.measures import hostile

# Those whose cases take a tenth of a second; `test_fuzz.py` has some of the others.
QUICK = ("references", "prompts", "weights", "adapters", "data sets")


@pytest.fixture
def watch(tmp_path, monkeypatch):
    made = hostile.Watch(tmp_path / "watch")
    monkeypatch.syspath_prepend(str(tmp_path / "watch" / "modules"))
    made.reset()
    yield made
    sys.modules.pop("hostile_canary", None)


def test_hostile_files_run_nothing_read_nothing_outside_and_are_one_line(tmp_path):
    counted = hostile.measure(2, 0, list(QUICK), tmp_path)
    for kind, row in counted.items():
        assert row.files >= 2 and not row.told, (kind, row.told)
        assert sum(row.outcomes.values()) >= 1


def test_a_trap_is_felt_when_a_module_is_imported_or_a_command_runs(watch):
    assert not watch.executed()
    importlib.import_module("hostile_canary")
    assert watch.executed()
    watch.reset()
    assert not watch.executed()
    os.system(f"touch {watch.traps.shell}")
    assert watch.executed()


def test_a_trap_is_felt_when_a_file_outside_is_read_or_somebody_connects(watch):
    assert not watch.outside()
    for path in watch.traps.outside.iterdir():
        watch.reset()
        path.read_bytes()
        assert watch.outside() or watch.forgets_times
    watch.reset()
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(f"http://{watch.traps.address}/", timeout=5)
    assert watch.connections


def test_every_kind_of_hostile_file_can_be_made(tmp_path, watch):
    made = hostile.sound(tmp_path / "sound")
    for number, make in enumerate(hostile_files.KINDS.values()):
        for seed in range(4):
            folder = tmp_path / f"{number}-{seed}"
            folder.mkdir()
            count, reads = make(folder, hostile_files.Rng(seed), watch.traps, made)
            assert count > 0 and (callable(reads) or reads[0] in ("data", "convert", "report"))
