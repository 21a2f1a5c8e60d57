"""The ledger of a run's time: every second is booked once, whatever was killed, damaged or done again."""

import json
import time

import pytest

from osjax.training import goodput
from osjax.training.goodput import Account, Ledger
from tests.measures.month import RESTART, month


def line(at, number=None, stage="a", **spent):
    about = {name: spent.pop(name) for name in ("begins", "skipped", "finished") if name in spent}
    return {"at": at, "stage": stage, **({} if number is None else {"step": number}), **about, "spent": spent}


def test_time_that_no_line_tells_of_was_down_and_all_causes_add_up_to_the_wall_time():
    lines = [line(110, start=10), line(120, 0, step=9, data=1), line(150, start=5), line(160, 0, step=10)]
    account = Account(lines)
    assert account.spent == {"start": 15, "step": 19, "data": 1, "down": 25}
    assert sum(account.spent.values()) == 160 - 100
    assert account.shares() == pytest.approx(
        {"goodput": 19 / 60, "lost/down": 25 / 60, "lost/start": 15 / 60, "lost/data": 1 / 60}
    )


def test_steps_after_the_checkpoint_that_a_stage_goes_on_from_were_done_for_nothing():
    steps = [line(100 + n, n, step=1.0) for n in range(1, 6)]
    account = Account([*steps, line(100, 9, stage="b", step=1.0), line(108, begins=3, restore=2.0)])
    assert account.spent["redone"] == 3 and account.spent["step"] == 3
    for n in range(3, 6):
        account.add(line(106 + n, n, step=1.0))
    assert account.spent["redone"] == 3 and account.spent["step"] == 6
    account.add(line(112, begins=5, restore=0.5))  # done three times now
    assert account.spent["redone"] == 4 and account.spent["step"] == 5


def test_a_step_without_an_update_is_no_useful_step():
    account = Account([line(101, 0, step=1.0), line(103, 1, step=2.0), line(104, 2, step=1.0, skipped=[1])])
    assert account.spent == {"step": 2.0, "skipped": 2.0}


def test_time_after_a_run_was_finished_counts_for_nothing():
    account = Account([line(101, 0, step=1.0), line(102, save=1.0, finished=True), line(5000, start=3.0)])
    assert account.spent == {"step": 1.0, "save": 1.0, "start": 3.0}


def test_a_ledger_books_what_passed_since_the_mark_before_and_goes_on_in_its_file(tmp_path):
    path = tmp_path / goodput.FILE
    ledger = Ledger(path, time.time() - 50)
    assert ledger.mark("start") == pytest.approx(50, abs=1)
    time.sleep(0.2)
    assert 0.2 <= ledger.mark("step") < 1
    ledger.write("a", step=0)
    ledger.close()
    time.sleep(0.3)
    again = Ledger(path)
    again.mark("start")
    again.write("a", begins=0)
    again.close()
    spent = goodput.read(path).spent
    assert spent["start"] == pytest.approx(50, abs=1) and 0.2 <= spent["redone"] < 1 and 0.3 <= spent["down"] < 1
    assert spent["step"] == pytest.approx(0)


@pytest.mark.parametrize(
    "damage",
    (
        '{"at": 1',
        "[]",
        "\0\0",
        '{"at": NaN, "spent": {}}',
        '{"at": 1, "spent": 3}',
        '{"at": 1, "step": 1e99, "spent": {}}',
        '{"at": 1, "spent": {"step": "x"}}',
        '{"at": 1, "spent": {}, "skipped": 7}',
    ),
)
def test_damaged_lines_are_passed_over_and_their_time_was_down(damage, tmp_path):
    path = tmp_path / goodput.FILE
    path.write_text("\n".join([json.dumps(line(101, 0, step=1.0)), damage, json.dumps(line(103, 1, step=1.0)), damage]))
    assert goodput.read(path).spent == {"step": 2.0, "down": 1.0}
    ledger = Ledger(path)  # which begins a line of its own after one that was cut short
    ledger.mark("step")
    ledger.write("a", step=2)
    ledger.close()
    assert json.loads(path.read_text().splitlines()[-1])["step"] == 2


def test_a_file_that_cannot_be_written_is_told_of_once_and_no_error(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file" / goodput.FILE)
    ledger.mark("step")
    ledger.write("a", step=0)
    ledger.close()
    assert len([r for r in caplog.records if "cannot be" in r.message]) <= 2 and ledger.account.spent


def test_rows_of_a_page_begin_with_goodput_and_name_the_largest_loss_first():
    rows = goodput.rows({"step": 90.0, "start": 2.0, "down": 8.0, "save": 0.0})
    assert [(cause, share) for cause, _, share, _ in rows] == [("goodput", 0.9), ("down", 0.08), ("start", 0.02)]
    assert goodput.rows({}) == []


def test_a_month_of_kills_loses_what_arithmetic_says():
    """Of a run with a kill every 30 minutes: the restart, half the time between checkpoints, half a step."""
    step_s, every, save_s = 10.0, 6, 0.5
    account = month(every, step_s, save_s, days=30)
    shares = account.shares()
    assert sum(account.spent.values()) == pytest.approx(30 * 86400, rel=1e-3)
    kills = 30 * 86400 / 1800
    restarts = shares["lost/start"] + shares["lost/prepare"] + shares["lost/restore"] + shares["lost/compile"]
    assert restarts == pytest.approx(kills * sum(RESTART.values()) / (30 * 86400), rel=0.1)
    again = shares["lost/redone"] + shares["lost/down"]
    assert again == pytest.approx((every * step_s + save_s) / 2 / 1800, rel=0.15)
    assert shares["lost/save"] == pytest.approx(save_s / (every * step_s + save_s), rel=0.1)
    assert month(every, step_s, save_s, between_s=1e9).shares()["goodput"] > 0.99
