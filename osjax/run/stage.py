"""One training stage from a config: fresh, continued from its checkpoint, or from another stage's weights."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import flax.linen as nn
import jax
from jax.sharding import Mesh

from osjax import models
from osjax.parallel import rules, sharding
from osjax.training import checkpoint, loop, metrics, optimizer, state


class Batches(Iterator, Protocol):
    """Batches of numpy rows whose place can be saved and set."""

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Stage:
    """What one stage is. init_from: parameters to start from (host arrays) instead of fresh ones."""

    name: str
    steps: int
    optimizer: optimizer.OptimizerConfig
    save_every: int = 0
    init_from: Any = None


@dataclass(frozen=True)
class Trained:
    """params: averaged parameters where the stage keeps an average, else the raw ones. lines: its metrics."""

    params: Any
    lines: list[dict[str, Any]]
    seconds: float


def train(
    stage: Stage,
    model_cfg: Any,
    make_step: Callable[[nn.Module, Any, optimizer.OptimizerConfig], Callable],
    batches: Batches,
    mesh: Mesh,
    workdir: Path,
    seed: int,
    config: dict[str, Any],
    axis_rules: Any = rules.TRANSFORMER,
) -> Trained:
    """Bring the stage to its last step, from wherever its checkpoints in `workdir/stage.name` stand."""
    folder = workdir / stage.name
    store = checkpoint.Checkpoints(folder / "checkpoints")
    try:
        tx = optimizer.make(stage.optimizer)
        key = jax.random.key(seed)
        init = partial(
            state.create, lambda: models.init_params(model_cfg, key), tx, with_ema=stage.optimizer.ema_decay > 0
        )
        boxed = jax.eval_shape(init)
        shardings = sharding.of_boxed(boxed, mesh, axis_rules)
        abstract = checkpoint.abstract_like(nn.unbox(boxed), shardings)
        if store.latest_step() != stage.steps:
            now = _start(stage, store, init, abstract, shardings, mesh, axis_rules, batches)
            step_fn = make_step(models.build(model_cfg), tx, stage.optimizer)
            compiled = sharding.jit_step(step_fn, shardings, mesh, axis_rules)
            settings = loop.LoopConfig(stage.name, stage.steps, stage.save_every)
            run_key = sharding.random_key(seed, mesh)
            loop.run(
                settings, now, compiled, batches, run_key, mesh, store, folder, config, data_state=batches.get_state
            )
            store.wait()
        weights = abstract.params if abstract.ema is None else abstract.ema
        params = store.restore_weights(weights, ema=abstract.ema is not None)
        lines = [line for line in metrics.read(folder / "metrics.jsonl") if line["stage"] == stage.name]
        return Trained(params, lines, seconds_of(lines))
    finally:
        store.close()


def _start(stage, store, init, abstract, shardings, mesh, axis_rules, batches) -> state.TrainState:
    if store.latest_step() is not None:
        now, data = store.restore(abstract)
        batches.set_state(data)
        return now
    now = sharding.init_sharded(init, mesh, rules=axis_rules)
    if stage.init_from is None:
        return now
    params = jax.tree.map(jax.device_put, stage.init_from, shardings.params)
    # The moving average starts at the same weights, in buffers of its own: both are donated.
    ema = None if now.ema is None else jax.tree.map(lambda p, s: jax.device_put(p.copy(), s), params, shardings.ema)
    return now.replace(params=params, ema=ema)


def seconds_of(lines: list[dict[str, Any]]) -> float:
    """Time that the steps of a metrics file took (compilation counted as a step of median length)."""
    rates = sorted(line["steps_per_s"] for line in lines if line.get("steps_per_s"))
    if not rates:
        return 0.0
    return sum(1 / (line.get("steps_per_s") or rates[len(rates) // 2]) for line in lines)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work` and the seconds it took."""
    started = time.monotonic()
    return work(), time.monotonic() - started
