"""The loop: order, resuming, signals, non-finite losses, metrics one step late and without gaps or repeats."""

import itertools
import json
import os
import re
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.parallel import sharding
from osjax.training import checkpoint, loop, metrics, optimizer, update
from osjax.training import state as states
from osjax.training.health import HealthConfig
from osjax.training.throughput import Throughput
from tests.training import tiny

CFG = optimizer.OptimizerConfig(lr=0.05, eps=1e-8, ema_decay=0.5)


class Rows:
    """Batches made from a count, whose place can be saved and set, as the real loader's can."""

    def __init__(self, poison=(), end=None, on=None):
        self.place, self.poison, self.end, self.on = 0, poison, end, on or {}

    def __iter__(self):
        return self

    def __next__(self):
        if self.place == self.end:
            raise StopIteration
        if self.place in self.on:
            self.on[self.place]()
        rows = np.random.default_rng(self.place).standard_normal((8, 4)).astype(np.float32)
        if self.place in self.poison:
            rows[0, 0] = np.nan
        self.place += 1
        return rows

    def get_state(self):
        return {"place": self.place}


class Run:
    """One small regression in a folder; `go` trains it and can be called again, as a command can."""

    def __init__(self, folder, **settings):
        self.folder, self.mesh, self.settings = folder, tiny.mesh_of(2, 2, 2, 1), settings
        self.extra = {}

    def go(self, steps, rows=None, evaluate=None, wrap=lambda step: step):
        tx = optimizer.make(CFG)
        init = lambda: states.create(lambda: {"w": jnp.ones(4)}, tx, with_ema=True)  # noqa: E731
        fresh = sharding.Init(init, self.mesh)
        shardings = fresh.shardings
        store = checkpoint.Checkpoints(self.folder / "checkpoints", keep=5)
        rows = Rows() if rows is None else rows
        now = fresh.make()
        if store.latest_step() is not None:
            now, data = store.restore(checkpoint.abstract_like(fresh.boxed, shardings))
            rows.place = data["place"]

        def loss_fn(params, batch, key):
            return jnp.mean((batch @ params["w"] + 0.1 * jax.random.normal(key, (8,))) ** 2)

        def step(state, batch, key):
            return update.apply(state, batch, jax.random.fold_in(key, state.step), loss_fn, tx, CFG)

        try:
            return jax.device_get(
                loop.run(
                    loop.LoopConfig("stage", steps, **self.settings),
                    now,
                    wrap(sharding.jit_step(step, shardings, self.mesh)),
                    rows,
                    tiny.run_key(self.mesh),
                    self.mesh,
                    loop.Records(store, self.folder, {"lr": CFG.lr}, data_state=rows.get_state, **self.extra),
                    evaluate=evaluate,
                )
            )
        finally:
            store.close()

    def lines(self):
        return metrics.read(self.folder / "metrics.jsonl")

    def saved(self):
        return sorted(int(p.name) for p in (self.folder / "checkpoints").iterdir() if p.name.isdigit())


def losses(run):
    return [line["loss"] for line in run.lines()]


def steps(run):
    return [line["step"] for line in run.lines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Eight steps without a break: (run, final state)."""
    run = Run(tmp_path_factory.mktemp("whole"))
    return run, run.go(8)


def test_a_run_stops_at_its_last_step_and_saves_it(whole):
    run, state = whole
    assert (int(state.step), run.saved(), steps(run)) == (8, [8], list(range(8)))
    assert losses(run)[-1] < losses(run)[0]
    assert {"loss", "grad_norm", "lr", "skipped", "steps_per_s", "data_wait_s", "stage"} <= set(run.lines()[3])


@pytest.mark.parametrize("save_every", [0, 3])
def test_a_run_in_two_parts_equals_one_in_one_part_bit_for_bit(tmp_path, whole, save_every):
    run = Run(tmp_path, save_every=save_every)
    run.go(5)
    state = run.go(8)
    assert tiny.same(state, whole[1]) and losses(run) == losses(whole[0]) and steps(run) == list(range(8))
    assert run.saved() == ([3, 5, 6, 8] if save_every else [5, 8])


def test_a_run_that_forgets_the_place_of_its_data_differs(tmp_path, whole):
    class Forgetful(Rows):
        def get_state(self):
            return {"place": 0}

    run = Run(tmp_path)
    run.go(5, Forgetful())
    assert not tiny.same(run.go(8).params, whole[1].params) and losses(run) != losses(whole[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_run_goes_on_without_gap_or_repeat(tmp_path, whole, number):
    before = signal.getsignal(number)
    run = Run(tmp_path)
    with pytest.raises(loop.Interrupted, match="stopped at step 4, saved; run the same command to go on"):
        run.go(8, Rows(on={3: lambda: os.kill(os.getpid(), number)}))
    assert run.saved() == [4] and steps(run) == [0, 1, 2, 3] and signal.getsignal(number) is before
    assert tiny.same(run.go(8), whole[1]) and losses(run) == losses(whole[0])


def test_a_kill_after_a_checkpoint_repeats_no_line(tmp_path, whole):
    run = Run(tmp_path, save_every=3)

    def die():
        raise MemoryError("as if killed")

    with pytest.raises(MemoryError):
        run.go(8, Rows(on={5: die}))
    assert run.saved() == [3] and steps(run) == [0, 1, 2, 3]  # step 4 was not read yet
    assert tiny.same(run.go(8), whole[1]) and steps(run) == list(range(8)) and losses(run) == losses(whole[0])


def test_one_bad_batch_is_skipped_counted_and_shown(tmp_path, whole, capfd):
    run = Run(tmp_path)
    state = run.go(8, Rows(poison=(2,)))
    assert (int(state.skipped), int(state.step)) == (1, 8) and np.isfinite(state.params["w"]).all()
    assert [line["skipped"] for line in run.lines()] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert run.lines()[2]["loss"] is None  # NaN is no JSON
    assert "step 2: loss or gradient not finite, update skipped" in capfd.readouterr().err
    assert not tiny.same(state.params, whole[1].params)


def test_bad_batches_in_a_row_stop_the_run_and_scattered_ones_do_not(tmp_path):
    run = Run(tmp_path / "row", health=HealthConfig(max_skipped=3))
    with pytest.raises(UserError, match="3 updates in a row were not finite, the last at step 4, and no checkpoint"):
        run.go(8, Rows(poison=(2, 3, 4)))
    scattered = Run(tmp_path / "scattered", health=HealthConfig(max_skipped=2))
    assert int(scattered.go(8, Rows(poison=(1, 3, 5, 7))).skipped) == 4


def test_a_run_in_trouble_goes_back_to_its_checkpoint_and_on_past_the_bad_batches(tmp_path, capfd):
    run = Run(tmp_path, save_every=2, health=HealthConfig(max_skipped=3))
    rows = Rows(poison=(4, 5, 6))
    state = run.go(8, rows)
    assert (int(state.step), int(state.skipped)) == (8, 0)  # as if the bad batches had never been
    assert steps(run) == list(range(8)) and None not in losses(run)
    assert "back to the checkpoint of step 4, on with new data" in capfd.readouterr().err
    # Steps 0-3 used batches 0-3; 4-6 were bad, and 7 was drawn before that was known; then come 8-11.
    assert rows.place == 12
    assert any(p.name.endswith(".damaged") for p in (tmp_path / "checkpoints").iterdir())  # saved in the trouble


def test_a_run_that_stays_in_trouble_stops_after_a_few_returns(tmp_path):
    run = Run(tmp_path, save_every=2, health=HealthConfig(max_skipped=2, max_rollbacks=2))
    with pytest.raises(UserError, match="after 2 returns to a checkpoint: lower the learning rate or look at the data"):
        run.go(8, Rows(poison=range(4, 99)))


def test_a_lasting_loss_spike_is_undone(tmp_path, capfd):
    class Spiky(Rows):
        def __next__(self):
            rows = super().__next__()
            return rows * 50 if 12 <= self.place - 1 < 15 else rows

    health = HealthConfig(spike_factor=20.0, spike_window=8, spike_steps=2)
    run = Run(tmp_path, save_every=5, health=health)
    run.go(20, Spiky())
    assert "the loss stayed above 20 times its median" in capfd.readouterr().err
    assert steps(run) == list(range(20)) and max(losses(run)) < 100
    plain = Run(tmp_path / "plain", save_every=5)
    plain.go(20, Spiky())
    assert max(losses(plain)) > 1000


def lost(run):
    """The folder of the checkpoints is gone and cannot be made again, as with a lost mount."""
    deadline = time.monotonic() + 60
    while any("tmp" in p.name for p in (run.folder / "checkpoints").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)  # what is being written would make the folder again
    (run.folder / "checkpoints").rename(run.folder / "elsewhere")
    (run.folder / "checkpoints").write_text("")


def found(run):
    (run.folder / "checkpoints").unlink()
    (run.folder / "elsewhere").rename(run.folder / "checkpoints")


def test_training_goes_on_while_its_folder_is_lost_and_saves_again_when_it_is_back(tmp_path, whole, capfd):
    run = Run(tmp_path, save_every=2)
    state = run.go(8, Rows(on={3: lambda: lost(run), 5: lambda: found(run)}))
    assert tiny.same(state, whole[1]) and losses(run) == losses(whole[0])
    assert 8 in run.saved() and 4 not in run.saved()
    err = capfd.readouterr().err
    assert re.search(r"the checkpoint of step [46] could not be written", err) and "training goes on" in err


def test_a_folder_that_stays_lost_stops_the_run_with_what_to_do(tmp_path):
    run = Run(tmp_path, save_every=1, max_failed_saves=3)
    with pytest.raises(UserError, match="3 saves in a row failed; .* make room or mend the folder"):
        run.go(30, Rows(on={3: lambda: lost(run)}))
    found(run)
    assert run.saved()  # what was written before is still there


def test_data_that_ends_early_is_an_error_that_says_where(tmp_path):
    with pytest.raises(UserError, match="the data ended at step 3 of 8"):
        Run(tmp_path).go(8, Rows(end=3))


def test_evaluation_comes_before_saving_before_the_batch_before_the_step(tmp_path):
    order = []
    run = Run(tmp_path, eval_every=2, save_every=2)

    class Watched(Rows):
        def __next__(self):
            order.append("batch")
            return super().__next__()

        def get_state(self):
            order.append("save")
            return super().get_state()

    def evaluate(state):
        order.append(f"eval{int(state.step)}")
        return {"eval_w": float(state.params["w"].sum())}

    run.go(4, Watched(), evaluate)
    assert order == ["eval0", "batch", "batch", "eval2", "save", "batch", "batch", "save"]
    assert ["eval_w" in line for line in run.lines()] == [True, False, True, False]
    assert run.lines()[0]["eval_w"] == 4.0


def test_metrics_are_read_one_step_late(tmp_path):
    run = Run(tmp_path)
    seen = []
    run.go(4, Rows(on={n: lambda: seen.append(len(run.lines())) for n in range(4)}))
    assert seen == [0, 0, 1, 2] and len(run.lines()) == 4


def test_a_step_that_takes_host_arrays_is_stopped_by_the_transfer_guard(tmp_path):
    def from_host(step):
        return lambda state, batch, key: step(state, np.ones(batch.shape, batch.dtype), key)

    with pytest.raises(Exception, match="[Dd]isallowed host-to-device"):
        Run(tmp_path).go(2, wrap=from_host)


def test_a_log_file_gets_whole_lines_with_loss_speed_and_time_left(tmp_path, capfd):
    Run(tmp_path).go(3)
    last = [line.strip() for line in capfd.readouterr().err.splitlines() if line.strip()][-1]
    assert last.startswith("stage: step 3 of 3, loss=") and "left" in last and "/" in last


def test_metrics_of_other_stages_are_kept_and_a_cut_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [{"stage": s, "step": n, "loss": 1.0} for s, n in itertools.product(("a", "b"), range(3))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "b", "st')
    log = metrics.MetricsLog(tmp_path, "a", 1)
    log.write(1, {"loss": 2.0})
    log.close()
    assert metrics.read(path) == [rows[0], *rows[3:], {"stage": "a", "step": 1, "loss": 2.0}]


def test_damaged_lines_of_a_metrics_file_are_set_aside_loudly_and_a_run_goes_on(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    damaged = [
        b"spoiled",
        b"\0" * 9,
        b"[1]",
        b'{"stage": "a"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"stage": 1, "step": 2}',
    ]
    good = [json.dumps({"stage": "a", "step": n}).encode() for n in range(3)]
    path.write_bytes(b"\n".join([good[0], *damaged, good[1], good[2], b'{"stage": "a", "st']))
    assert [line["step"] for line in metrics.read(path)] == [0, 1, 2]
    assert "7 lines of" in caplog.text and "damaged" in caplog.text and path.read_bytes().count(b"spoiled") == 1
    log = metrics.MetricsLog(tmp_path, "a", 2)
    log.write(2, {"loss": 1.0})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2]
    aside = (tmp_path / "metrics.jsonl.damaged").read_text().splitlines()
    assert len(aside) == len(damaged) and aside[0] == "spoiled"


def test_lines_hold_tokens_a_second_and_utilisation_and_dashboards_the_loss_by_bucket(tmp_path):
    asked, shown = [], []

    def tokens(batch):
        asked.append(batch.shape)
        return 100

    def flops(batch):
        asked.append(batch.shape)
        return 2_000

    class Board:
        def write(self, stage, step, values):
            shown.append(values)

    def run_with(folder, peak):
        run = Run(folder)
        run.extra = {"throughput": Throughput(tokens, flops, peak), "dashboards": (Board(),)}
        run.go(4)
        return run.lines()

    lines = run_with(tmp_path / "known", 1e6)
    assert asked == [(8, 4)] * 2 and "tokens_per_s" not in lines[0]  # the first interval is compilation
    for line in lines[1:]:
        assert line["tokens_per_s"] == pytest.approx(100 * line["steps_per_s"])
        assert line["mfu"] == pytest.approx(2e-3 * line["steps_per_s"])
    assert [values["loss/8x4"] for values in shown] == [line["loss"] for line in lines]
    assert "mfu" not in run_with(tmp_path / "unknown", None)[2]
    assert len(asked) == 3  # FLOPs are not counted where no peak is known


def test_a_wait_for_data_counts_only_while_the_devices_stand_still(tmp_path):
    """Steps of no work behind slow batches wait for them; steps that are slower than their batches do not."""

    class Slow(Rows):
        def __next__(self):
            time.sleep(0.1)
            return super().__next__()

    def busy(step):
        pause = jax.jit(lambda loss: jax.pure_callback(lambda x: (time.sleep(0.4), x)[1], loss, loss))

        def run(*args):
            state, found = step(*args)
            return state, {**found, "loss": pause(found["loss"])}

        return run

    idle, late = Run(tmp_path / "idle"), Run(tmp_path / "busy")
    idle.go(4, rows=Slow())
    late.go(4, rows=Slow(), wrap=busy)
    assert all(line["data_wait_s"] == line["data_s"] > 0.1 for line in idle.lines()[1:])
    assert all(line["data_wait_s"] == 0 < 0.1 < line["data_s"] for line in late.lines()[1:])
