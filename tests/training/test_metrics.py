"""metrics.jsonl stays the file that people see, whatever becomes of it while a run writes."""

import logging
import shutil

import pytest

from osjax.errors import UserError
from osjax.training import metrics


@pytest.fixture
def log(tmp_path):
    log = metrics.MetricsLog(tmp_path / "run", "a", 0)
    log.write(0, {"loss": 1.0})
    yield log
    log.close()


def steps(log):
    return [line["step"] for line in metrics.read(log.path)]


def test_a_file_that_stays_gets_every_line_and_no_warning(log, caplog):
    log.write(1, {"loss": 0.5})
    assert steps(log) == [0, 1] and not caplog.records


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_is_deleted_or_replaced_is_begun_anew_loudly(log, how, caplog):
    log.path.unlink()
    if how == "replaced":
        log.path.touch()
    with caplog.at_level(logging.WARNING):
        log.write(1, {"loss": 0.5})
        log.write(2, {"loss": 0.4})
    assert steps(log) == [1, 2]
    assert ["earlier lines are lost" in record.getMessage() for record in caplog.records] == [True]


def test_a_folder_that_is_deleted_while_a_run_writes_to_it_ends_the_run_with_one_line(log):
    shutil.rmtree(log.path.parent)
    with pytest.raises(UserError, match="run was deleted while the run wrote to it: start it again"):
        log.write(1, {"loss": 0.5})
