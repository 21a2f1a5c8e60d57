"""The one training loop, for diffusion and autoencoders alike: evaluate, save, next batch, step.

Saving before the batch is drawn makes a checkpoint exactly (state, data iterator): nothing is lost or repeated.
Metrics are read one step late, so the device never waits for the host.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from tqdm import tqdm

from osjax.errors import UserError
from osjax.parallel.host import to_global
from osjax.training import twice
from osjax.training.checkpoint import Checkpoints
from osjax.training.dashboards import Dashboard
from osjax.training.goodput import STEP, Ledger
from osjax.training.health import Illness
from osjax.training.late import LateMetrics, progress_bar
from osjax.training.local_tier import LocalTier
from osjax.training.loop_config import LoopConfig
from osjax.training.metrics import MetricsLog
from osjax.training.peers import Peers
from osjax.training.profile import Profile
from osjax.training.saver import Saver
from osjax.training.state import TrainState
from osjax.training.stop import stop_requests
from osjax.training.throughput import Throughput
from osjax.training.watchdog import Watchdog
from osjax.types import Json, Tree


class Interrupted(UserError):
    """A run that was asked to stop; its checkpoint is written."""


@dataclass(frozen=True)
class Records:
    """Where a run leaves what it makes, and what it tells beside its metrics.

    checkpoints: where states are saved. workdir: for metrics.jsonl, profiles and the stacks of a hang.
    config: JSON values, saved with every state. data_state: gives the data iterator's place, saved as well.
    dashboards: get every line that metrics.jsonl gets. throughput: adds tokens per second and MFU to the lines.
    ledger: of where the time goes. local: where states are saved between those of `checkpoints`.
    """

    checkpoints: Checkpoints
    workdir: Path
    config: Json
    data_state: Callable[[], Json] | None = None
    dashboards: Sequence[Dashboard] = ()
    throughput: Throughput | None = None
    ledger: Ledger = field(default_factory=Ledger)
    local: LocalTier | None = None


def run(
    cfg: LoopConfig,
    state: TrainState,
    step_fn: Callable[[TrainState, Tree, jax.Array], tuple[TrainState, dict[str, jax.Array]]],
    batches: Iterator[Any],
    run_key: jax.Array,
    mesh: Mesh,
    records: Records,
    evaluate: Callable[[TrainState], dict[str, float]] | None = None,
) -> TrainState:
    """Train from `state.step` to `cfg.total_steps`; returns the final state, saved.

    step_fn: jit-compiled, donates its state. batches: this host's numpy rows, already at the state's place.
    run_key: on the mesh; each step folds its number into it. records: where all goes. evaluate: measures a state every
    `eval_every` steps; its numbers join the metrics of the step that follows.
    Of each step, data_s is what its batch took the host, data_wait_s how much of that the devices may have stood still.
    On SIGTERM or Ctrl-C the state is saved, then Interrupted is raised. After `health.max_skipped` non-finite updates
    in a row, or a lasting loss spike, the run goes back to the last good checkpoint and on with the batches that follow
    the bad ones; UserError when there is none, when it did so `health.max_rollbacks` times, when saving keeps failing,
    when a step done twice by `health.verify_every` differs, and when the batches end early.
    """
    # The host counts steps by itself: to ask the state every time would wait for the step under way.
    step = first = int(jax.device_get(state.step))
    checkpoints, workdir, throughput, ledger = records.checkpoints, records.workdir, records.throughput, records.ledger
    log = MetricsLog(workdir, cfg.stage, first) if jax.process_index() == 0 else None
    late = LateMetrics(cfg, log, records.dashboards, int(jax.device_get(state.skipped)), throughput, ledger)
    saver = Saver(cfg, checkpoints, records.data_state, records.config, records.local)
    compute, rollbacks = _Compute(cfg, step_fn, run_key, ledger), 0
    index, count = jax.process_index(), jax.process_count()
    ledger.tell(cfg.stage, "start", begins=first)
    hang = partial(ledger.tell, cfg.stage, "hang")
    peers = Peers(checkpoints.signs, index, count)
    watchdog = Watchdog(cfg.hang_factor, cfg.hang_least_s, workdir, index, os._exit, count, hang, peers.culprits)
    profiled = Profile(cfg, first, workdir)
    with stop_requests() as stopped, progress_bar(cfg, first) as bar, peers, watchdog, profiled as profile:
        try:
            while step < cfg.total_steps:
                # The order is the contract: all that happens before `next` sees the state and the data iterator at one
                # and the same step, so what is saved here goes on with the very batch that follows.
                stop = stopped(step)
                measured = {}
                if evaluate and not stop and _due(step, cfg.eval_every):
                    measured = _measured(evaluate, state, late, ledger)
                if stop or (step > first and saver.is_due(step)):  # not the state that it began with
                    late.flush(bar)  # so that metrics.jsonl reaches as far as the checkpoint
                    _save(saver, step, state, ledger, last=stop)
                if stop:
                    raise Interrupted(f"{cfg.stage}: stopped at step {step}, saved; run the same command to go on")
                with peers.reading():
                    batch, took = _next_batch(batches, mesh, cfg, step)
                waited = took if late.all_done() else 0.0  # at most; none where the step before was still running
                ledger.mark("data" if waited else STEP)
                if throughput:
                    throughput.look_at(_shape(batch), batch)
                profile.before(step)
                state, metrics = compute(step, state, batch)
                # Holds the metrics of this step and reads those of the one before, which are ready or nearly so. What
                # is wrong is therefore known one step late; `ill.since` says where it began.
                ill = late.push(
                    step, metrics, {**measured, "data_s": took, "data_wait_s": waited, "batch": _shape(batch)}, bar
                )
                watchdog.beat()
                step += 1
                if step == cfg.total_steps:  # no step follows in whose shade to read: wait, before all is called well
                    ill = late.flush(bar) or ill
                ledger.tell(cfg.stage, STEP, step=step - 1)
                if ill:
                    rollbacks += 1
                    state = _roll_back(cfg, records, state, ill, rollbacks)
                    step = int(jax.device_get(state.step))
                    late.rewind(step, int(jax.device_get(state.skipped)), bar)
                    ledger.tell(cfg.stage, "restore", begins=step)
            _save(saver, cfg.total_steps, state, ledger, last=True)
        finally:
            if log:
                log.close()
    return state


class _Compute:
    """A step on the devices, in the ledger: the first of a shape of batches compiles.

    cfg, step_fn, run_key: as `run` takes them.
    """

    def __init__(self, cfg: LoopConfig, step_fn: Callable, run_key: jax.Array, ledger: Ledger):
        self._step_fn, self._run_key, self._ledger = step_fn, run_key, ledger
        self._verify_every, self._shapes = cfg.health.verify_every, set[str]()

    def __call__(self, step: int, state: TrainState, batch: Tree) -> tuple[TrainState, dict[str, jax.Array]]:
        """The state after the step, and the step's metrics. The given state is gone: its buffers are the new one's.

        step: its number. UserError where it is one to verify, and its bits differ.
        """
        shape = _shape(batch)
        if _due(step, self._verify_every):
            done = twice.twice(self._step_fn, step, state, batch, self._run_key)
            self._ledger.mark("verify" if shape in self._shapes else "compile")
            self._shapes.add(shape)
            return done
        with jax.transfer_guard("disallow"):  # a step that copies between host and device is a mistake
            after, metrics = self._step_fn(state, batch, self._run_key)  # returns once the step is queued
        self._ledger.mark(STEP if shape in self._shapes else "compile")
        self._shapes.add(shape)
        return after, metrics


def _measured(
    evaluate: Callable[[TrainState], dict[str, float]], state: TrainState, late: LateMetrics, ledger: Ledger
) -> dict[str, float]:
    late.wait()  # it would wait for the step under way itself; so that is not taken for its own time
    ledger.mark(STEP)
    measured = evaluate(state)
    ledger.mark("evaluate")
    return measured


def _save(saver: Saver, step: int, state: TrainState, ledger: Ledger, last: bool) -> None:
    """Save a state. last: nothing follows, so wait until it is written."""
    ledger.mark(STEP)
    saver.save(step, state, last)
    if last:
        saver.finish(step, state)
    ledger.tell(saver.cfg.stage, "save")


def _roll_back(cfg: LoopConfig, records: Records, state: TrainState, ill: Illness, times: int) -> TrainState:
    """The newest state from before the trouble. The data iterator stays where it is: past the bad batches."""
    checkpoints, local = records.checkpoints, records.local
    advice = "lower the learning rate or look at the data"
    if times > cfg.health.max_rollbacks:
        raise UserError(f"{cfg.stage}: {ill.reason}, after {times - 1} returns to a checkpoint: {advice}")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    checkpoints.wait()  # a save under way may be the newest sound one, or one to set aside
    # A checkpoint of step n holds the state before step n ran: that of `since` itself is still good.
    step = checkpoints.return_to(ill.since)
    nearer = local and local.restore(abstract, after=-1 if step is None else step, until=ill.since)
    if nearer:
        step, restored = nearer.step, nearer.state
    elif step is None:
        raise UserError(f"{cfg.stage}: {ill.reason}, and no checkpoint is older: {advice}")
    else:
        restored = checkpoints.restore(abstract, step)[0]
    if local:
        local.forget_after(step)
    tqdm.write(f"{cfg.stage}: {ill.reason}: back to the checkpoint of step {step}, on with new data", file=sys.stderr)
    # The model beneath adapters is in no checkpoint, and no step changes it.
    return restored.replace(frozen=state.frozen)


def _shape(batch: Tree) -> str:
    """Shape of the largest array of a batch, such as 32x2x5x5x32: the bucket."""
    return "x".join(map(str, max(jax.tree.leaves(batch), key=lambda x: x.size).shape))


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _next_batch(batches: Iterator[Any], mesh: Mesh, cfg: LoopConfig, step: int) -> tuple[Any, float]:
    """The next batch on the mesh, and the seconds that it took."""
    asked = time.perf_counter()
    rows = next(batches, None)
    if rows is None:
        raise UserError(f"{cfg.stage}: the data ended at step {step} of {cfg.total_steps}: give more, or fewer steps")
    return to_global(rows, mesh), time.perf_counter() - asked
