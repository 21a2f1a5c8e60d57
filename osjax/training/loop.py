"""The one training loop, for diffusion and autoencoders alike: evaluate, save, next batch, step.

Saving before the batch is drawn makes a checkpoint exactly (state, data iterator): nothing is lost or repeated.
Metrics are read one step late, so the device never waits for the host.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from osjax.errors import UserError
from osjax.parallel.host import to_global
from osjax.training.checkpoint import Checkpoints
from osjax.training.metrics import MetricsLog
from osjax.training.state import TrainState


@dataclass(frozen=True)
class LoopConfig:
    """stage: name in logs. total_steps: updates in all. save_every: steps between checkpoints (0: only the last).

    eval_every: steps between evaluations. max_skipped: non-finite updates in a row after which the run stops.
    """

    stage: str
    total_steps: int
    save_every: int = 0
    eval_every: int = 0
    max_skipped: int = 10


class Interrupted(UserError):
    """A run that was asked to stop; its checkpoint is written."""


def run(
    cfg: LoopConfig,
    state: TrainState,
    step_fn: Callable[[TrainState, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]],
    batches: Iterator[Any],
    run_key: jax.Array,
    mesh: Mesh,
    checkpoints: Checkpoints,
    workdir: Path,
    config: dict[str, Any],
    data_state: Callable[[], dict[str, Any]] | None = None,
    evaluate: Callable[[TrainState], dict[str, float]] | None = None,
) -> TrainState:
    """Train from `state.step` to `cfg.total_steps`; returns the final state, saved.

    step_fn: jit-compiled, donates its state. batches: this host's numpy rows, already at the state's place.
    data_state: gives the iterator's place for the checkpoint. evaluate: measures a state every `eval_every` steps; its
    numbers join the metrics of the step that follows. On SIGTERM or Ctrl-C the state is saved, then Interrupted is
    raised. UserError after `max_skipped` non-finite updates in a row, and when the batches end early.
    """
    first = int(jax.device_get(state.step))
    log = MetricsLog(workdir, cfg.stage, first) if jax.process_index() == 0 else None
    late = _LateMetrics(cfg, log, first, int(jax.device_get(state.skipped)))
    with _stop_requests() as stopped, _bar(cfg, first) as bar:
        try:
            for step in range(first, cfg.total_steps):
                stop = stopped(step)
                found = evaluate(state) if evaluate and not stop and _due(step, cfg.eval_every) else {}
                if stop or (_due(step, cfg.save_every) and step > first):
                    late.flush(bar)  # so that metrics.jsonl reaches as far as the checkpoint
                    checkpoints.save(step, state, data_state and data_state(), config)
                if stop:
                    checkpoints.wait()
                    raise Interrupted(f"{cfg.stage}: stopped at step {step}, saved; run the same command to go on")
                batch, waited = _next_batch(batches, mesh, cfg, step)
                with jax.transfer_guard("disallow"):  # a step that copies between host and device is a mistake
                    state, metrics = step_fn(state, batch, run_key)
                late.push(step, metrics, {**found, "data_wait_s": waited}, bar)
            late.flush(bar)
            checkpoints.save(cfg.total_steps, state, data_state and data_state(), config)
        finally:
            if log:
                log.close()
    return state


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _next_batch(batches: Iterator[Any], mesh: Mesh, cfg: LoopConfig, step: int) -> tuple[Any, float]:
    """The next batch on the mesh, and the seconds that it took."""
    asked = time.perf_counter()
    rows = next(batches, None)
    if rows is None:
        raise UserError(f"{cfg.stage}: the data ended at step {step} of {cfg.total_steps}: give more, or fewer steps")
    return to_global(rows, mesh), time.perf_counter() - asked


class _LateMetrics:
    """Holds the metrics of one step until the next has been dispatched, then reads, logs and shows them."""

    def __init__(self, cfg: LoopConfig, log: MetricsLog | None, first: int, skipped: int):
        self.cfg, self.log, self.held = cfg, log, None
        self.first, self.skipped, self.in_a_row = first, skipped, 0
        self.last_time = None
        self.rate = 0.0

    def push(self, step: int, metrics: dict[str, jax.Array], host: dict[str, float], bar: tqdm) -> None:
        """metrics: still on the devices. host: numbers of this step that are known already."""
        self.flush(bar)
        self.held = (step, metrics, host)

    def flush(self, bar: tqdm) -> None:
        if self.held is None:
            return
        step, metrics, host = self.held
        self.held = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        if self.last_time is not None:  # the first interval is compilation
            self.rate = 1 / (now - self.last_time)
        self.last_time = now
        if self.log:
            self.log.write(step, {**values, "steps_per_s": self.rate or None, **host})
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        bar.update()
        self._check(step, values)

    def _check(self, step: int, values: dict[str, float]) -> None:
        self.in_a_row = self.in_a_row + 1 if values["skipped"] > self.skipped else 0
        if self.in_a_row:
            tqdm.write(f"{self.cfg.stage} step {step}: loss or gradient not finite, update skipped", file=sys.stderr)
        self.skipped = values["skipped"]
        if self.in_a_row >= self.cfg.max_skipped:
            raise UserError(
                f"{self.cfg.stage}: {self.in_a_row} updates in a row were not finite, the last at step {step}: "
                "lower the learning rate or look at the data"
            )


def _bar(cfg: LoopConfig, first: int) -> tqdm:
    # On a terminal a live bar; in a log file a whole line every half minute rather than one endless line.
    live = sys.stderr.isatty()
    return tqdm(
        total=cfg.total_steps,
        initial=first,
        desc=cfg.stage,
        unit="step",
        mininterval=0.2 if live else 30,
        maxinterval=10 if live else 30,
        bar_format=None if live else "{desc}: step {n_fmt} of {total_fmt}{postfix}, {rate_fmt}, {remaining} left\n",
        disable=jax.process_index() != 0,
    )


@contextmanager
def _stop_requests() -> Iterator[Callable[[int], bool]]:
    """Gives `stopped(step)`: has SIGTERM or Ctrl-C asked the run to stop? A second Ctrl-C stops at once.

    With several hosts the answer must be the same on all at the same step, or they would wait for each other for ever:
    jax's own SIGTERM handler then agrees on a step, and handlers of ours would hide the signal from it.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return

    def request(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda step: event.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
