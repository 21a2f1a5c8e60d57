"""The one training loop, for diffusion and autoencoders alike: evaluate, save, next batch, step.

Saving before the batch is drawn makes a checkpoint exactly (state, data iterator): nothing is lost or repeated.
Metrics are read one step late, so the device never waits for the host.
"""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from osjax.training.dashboards import Dashboard
from osjax.training.health import Health, HealthConfig, Illness
from osjax.training.metrics import MetricsLog
from osjax.training.state import TrainState
from osjax.training.throughput import Throughput
from osjax.training.watchdog import Watchdog


@dataclass(frozen=True)
class LoopConfig:
    """stage: name in logs. total_steps: updates in all. save_every: steps between checkpoints (0: only the last).

    eval_every: steps between evaluations. hang_factor: median steps without a step after which the process ends for a
    restart (0: never), but not before hang_least_s seconds. max_failed_saves: saves in a row that may fail, as on a
    full disk, before the run stops. profile_steps: steps of an XProf trace, from the fourth on.
    """

    stage: str
    total_steps: int
    save_every: int = 0
    eval_every: int = 0
    health: HealthConfig = HealthConfig()
    hang_factor: float = 0.0
    hang_least_s: float = 600.0
    max_failed_saves: int = 3
    profile_steps: int = 0


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
    dashboards: Sequence[Dashboard] = (),
    throughput: Throughput | None = None,
) -> TrainState:
    """Train from `state.step` to `cfg.total_steps`; returns the final state, saved.

    step_fn: jit-compiled, donates its state. batches: this host's numpy rows, already at the state's place. run_key:
    on the mesh, what each step folds its number into. checkpoints: where states are saved, each with `config`.
    workdir: where metrics.jsonl, profiles and the stacks of a hang go.
    data_state: gives the iterator's place for the checkpoint. evaluate: measures a state every `eval_every` steps; its
    numbers join the metrics of the step that follows. dashboards: get every line that metrics.jsonl gets.
    throughput: adds tokens per second and MFU to them.
    Of each step, data_s is what its batch took the host, data_wait_s how much of that the devices may have stood still.
    On SIGTERM or Ctrl-C the state is saved, then Interrupted is raised. After `health.max_skipped` non-finite updates
    in a row, or a lasting loss spike, the run goes back to the last good checkpoint and on with the batches that follow
    the bad ones; UserError when there is none, when it did so `health.max_rollbacks` times, when saving keeps failing,
    and when the batches end early.
    """
    step = first = int(jax.device_get(state.step))
    log = MetricsLog(workdir, cfg.stage, first) if jax.process_index() == 0 else None
    late = _LateMetrics(cfg, log, dashboards, int(jax.device_get(state.skipped)), throughput)
    saver = _Saver(cfg, checkpoints, data_state, config)
    rollbacks = 0
    index, count = jax.process_index(), jax.process_count()
    watchdog = Watchdog(cfg.hang_factor, cfg.hang_least_s, workdir, index, processes=count)
    with _stop_requests() as stopped, _bar(cfg, first) as bar, watchdog, _Profile(cfg, first, workdir) as profile:
        try:
            while step < cfg.total_steps:
                stop = stopped(step)
                measured = evaluate(state) if evaluate and not stop and _due(step, cfg.eval_every) else {}
                if stop or (_due(step, cfg.save_every) and step > first):
                    late.flush(bar)  # so that metrics.jsonl reaches as far as the checkpoint
                    saver.save(step, state)
                if stop:
                    saver.finish(step, state)
                    raise Interrupted(f"{cfg.stage}: stopped at step {step}, saved; run the same command to go on")
                batch, took = _next_batch(batches, mesh, cfg, step)
                waited = took if late.all_done() else 0.0  # at most; none where the step before was still running
                if throughput:
                    throughput.look_at(_shape(batch), batch)
                profile.before(step)
                with jax.transfer_guard("disallow"):  # a step that copies between host and device is a mistake
                    state, metrics = step_fn(state, batch, run_key)
                ill = late.push(
                    step, metrics, {**measured, "data_s": took, "data_wait_s": waited, "batch": _shape(batch)}, bar
                )
                watchdog.beat()
                step += 1
                if step == cfg.total_steps:
                    ill = late.flush(bar) or ill
                if ill:
                    rollbacks += 1
                    state = _roll_back(cfg, checkpoints, state, ill, rollbacks)
                    step = int(jax.device_get(state.step))
                    late.rewind(step, int(jax.device_get(state.skipped)), bar)
            saver.save(cfg.total_steps, state)
            saver.finish(cfg.total_steps, state)
        finally:
            if log:
                log.close()
    return state


def _roll_back(cfg: LoopConfig, checkpoints: Checkpoints, state: TrainState, ill: Illness, times: int) -> TrainState:
    """The newest state from before the trouble. The data iterator stays where it is: past the bad batches."""
    advice = "lower the learning rate or look at the data"
    if times > cfg.health.max_rollbacks:
        raise UserError(f"{cfg.stage}: {ill.reason}, after {times - 1} returns to a checkpoint: {advice}")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    checkpoints.wait()
    step = checkpoints.return_to(ill.since)
    if step is None:
        raise UserError(f"{cfg.stage}: {ill.reason}, and no checkpoint is older: {advice}")
    tqdm.write(f"{cfg.stage}: {ill.reason}: back to the checkpoint of step {step}, on with new data", file=sys.stderr)
    return checkpoints.restore(abstract, step)[0].replace(frozen=state.frozen)


class _Saver:
    """Saves, and lets training go on when a save fails: the checkpoint before it is still there."""

    def __init__(self, cfg: LoopConfig, checkpoints: Checkpoints, data_state: Callable | None, config: dict[str, Any]):
        self.cfg, self.checkpoints, self.data_state, self.config = cfg, checkpoints, data_state, config
        self.failed = 0
        self.under_way = False

    def save(self, step: int, state: TrainState) -> None:
        data = self.data_state and self.data_state()
        try:
            self.checkpoints.save(step, state, data, self.config)
        except UserError:
            raise
        except Exception as error:  # what a file system can raise here has no common class
            self.under_way = False
            self._count(step, error)
            return
        if self.under_way:  # then that one has arrived: the call would have raised its error
            self.failed = 0
        self.under_way = True

    def finish(self, step: int, state: TrainState) -> None:
        """Wait for the last save, and try it once more if it failed: here nothing can go on without it."""
        try:
            self.checkpoints.wait()
        except Exception as error:
            self._count(step, error)
        if self.checkpoints.latest_step() == step:
            return
        try:
            self.checkpoints.save(step, state, self.data_state and self.data_state(), self.config)
            self.checkpoints.wait()
        except Exception as error:
            raise UserError(
                f"{self.cfg.stage}: {self._words(step, error)}: make room and run the command again"
            ) from error

    def _count(self, step: int, error: Exception) -> None:
        self.failed += 1
        if self.failed >= self.cfg.max_failed_saves:
            raise UserError(
                f"{self.cfg.stage}: {self.failed} saves in a row failed; {self._words(step, error)}: make room or mend "
                "the folder, then run the same command to go on from the last checkpoint"
            ) from error
        tqdm.write(f"{self.cfg.stage}: {self._words(step, error)}; training goes on", file=sys.stderr)

    def _words(self, step: int, error: Exception) -> str:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return f"the checkpoint of step {step} could not be written ({first})"


class _Profile:
    """An XProf trace of `profile_steps` steps, after those that compile."""

    def __init__(self, cfg: LoopConfig, first: int, workdir: Path):
        self.folder, self.on = workdir / "profile", False
        self.start = first + 3 if cfg.profile_steps else -1
        self.end = self.start + cfg.profile_steps

    def __enter__(self) -> "_Profile":
        return self

    def __exit__(self, *_) -> None:
        if self.on:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        if step == self.start:
            jax.profiler.start_trace(self.folder)
            self.on = True
        elif self.on and step >= self.end:
            jax.profiler.stop_trace()
            self.on = False


def _shape(batch: Any) -> str:
    """Shape of the largest array of a batch, such as 32x2x5x5x32: the bucket."""
    return "x".join(map(str, max(jax.tree.leaves(batch), key=lambda x: x.size).shape))


def _memory() -> dict[str, float]:
    """Peak bytes of the first device, where it tells (a CPU does not)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return {"peak_memory_gb": stats["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in stats else {}


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

    def __init__(
        self,
        cfg: LoopConfig,
        log: MetricsLog | None,
        dashboards: Sequence[Dashboard],
        skipped: int,
        throughput: Throughput | None,
    ):
        self.cfg, self.log, self.dashboards, self.held = cfg, log, dashboards, None
        self.throughput = throughput
        self.health = Health(cfg.health, skipped)
        self.last_time = None
        self.rate = 0.0

    def push(self, step: int, metrics: dict[str, jax.Array], host: dict[str, float], bar: tqdm) -> Illness | None:
        """metrics: still on the devices. host: numbers of this step that are known already."""
        ill = self.flush(bar)
        self.held = (step, metrics, host)
        return ill

    def all_done(self) -> bool:
        """Whether the devices have nothing left to do."""
        return self.held is None or self.held[1]["loss"].is_ready()

    def flush(self, bar: tqdm) -> Illness | None:
        if self.held is None:
            return None
        step, metrics, host = self.held
        self.held = None
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        now = time.perf_counter()
        if self.last_time is not None:  # the first interval is compilation
            self.rate = 1 / (now - self.last_time)
        self.last_time = now
        if self.log:
            present = {name: x for name, x in values.items() if not (name.startswith("loss/") and math.isnan(x))}
            rates = self.throughput.rates(host["batch"], self.rate) if self.throughput and self.rate else {}
            line = {**present, "steps_per_s": self.rate or None, **rates, **_memory(), **host}
            self.log.write(step, line)
            for dashboard in self.dashboards:
                dashboard.write(self.cfg.stage, step, {**line, f"loss/{host['batch']}": line["loss"]})
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        bar.update()
        before = self.health.skipped
        ill = self.health.observe(step, values["loss"], int(values["skipped"]))
        if self.health.skipped > before:
            tqdm.write(f"{self.cfg.stage} step {step}: loss or gradient not finite, update skipped", file=sys.stderr)
        return ill

    def rewind(self, step: int, skipped: int, bar: tqdm) -> None:
        """Forget what came at or after `step`."""
        self.held, self.last_time = None, None
        self.health.restart(skipped)
        if self.log:
            self.log.rewind(step)
        bar.n = step
        bar.refresh()


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
