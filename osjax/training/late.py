"""Metrics that are read one step late, so that the devices never wait for the host; where they go and who looks."""

import math
import sys
import time
from collections.abc import Sequence

import jax
from tqdm import tqdm

from osjax.training.dashboards import Dashboard
from osjax.training.goodput import Ledger
from osjax.training.health import Health, Illness
from osjax.training.loop_config import LoopConfig
from osjax.training.metrics import MetricsLog
from osjax.training.throughput import Throughput


class LateMetrics:
    """The metrics of one step, held until the next has been dispatched, then read, logged and shown.

    cfg: of the loop. log: None on all processes but the first. dashboards: get every line that the log gets. skipped:
    the state's count of updates left out so far. throughput: adds tokens a second and MFU to the lines, or None.
    ledger: adds goodput and losses, and is told of updates left out.
    """

    def __init__(
        self,
        cfg: LoopConfig,
        log: MetricsLog | None,
        dashboards: Sequence[Dashboard],
        skipped: int,
        throughput: Throughput | None,
        ledger: Ledger,
    ):
        self.cfg, self.log, self.dashboards, self.held = cfg, log, dashboards, None
        self.throughput, self.ledger = throughput, ledger
        self.health = Health(cfg.health, skipped)
        self.last_time = None
        self.rate = 0.0

    def push(self, step: int, metrics: dict[str, jax.Array], host: dict[str, float], bar: tqdm) -> Illness | None:
        """Take the metrics of a step and deal with those of the one before; what is wrong with that, or None.

        metrics: still on the devices. host: numbers of this step that are known already. bar: moves on by a step.
        """
        ill = self.flush(bar)
        self.held = (step, metrics, host)
        return ill

    def all_done(self) -> bool:
        """Whether the devices have nothing left to do."""
        return self.held is None or self.held[1]["loss"].is_ready()

    def wait(self) -> None:
        """Return once the devices are done with the step that is held."""
        if self.held is not None:
            jax.block_until_ready(self.held[1])

    def flush(self, bar: tqdm) -> Illness | None:
        """Read, log and show the metrics that are held; what is wrong with them, or None. It waits for the devices."""
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
            spent = {name: round(share, 5) for name, share in self.ledger.account.shares().items()}
            line = {**present, "steps_per_s": self.rate or None, **rates, **_memory(), **spent, **host}
            self.log.write(step, line)
            for dashboard in self.dashboards:
                dashboard.write(self.cfg.stage, step, {**line, f"loss/{host['batch']}": line["loss"]})
        bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        bar.update()
        before = self.health.skipped
        ill = self.health.observe(step, values["loss"], int(values["skipped"]))
        if self.health.skipped > before:
            self.ledger.skip(step)
            tqdm.write(f"{self.cfg.stage} step {step}: loss or gradient not finite, update skipped", file=sys.stderr)
        return ill

    def rewind(self, step: int, skipped: int, bar: tqdm) -> None:
        """Forget what came at or after `step`, for a run that goes back.

        skipped: updates left out so far, as the state there counts them. bar: goes back to that step, too.
        """
        self.held, self.last_time = None, None
        self.health.restart(skipped)
        if self.log:
            self.log.rewind(step)
        bar.n = step
        bar.refresh()


def progress_bar(cfg: LoopConfig, first: int) -> tqdm:
    """The bar of a run that begins at step `first`, on the first process."""
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


def _memory() -> dict[str, float]:
    """Peak bytes of the first device, where it tells (a CPU does not)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return {"peak_memory_gb": stats["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in stats else {}
