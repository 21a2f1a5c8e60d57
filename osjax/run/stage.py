"""One stage of a run: fresh, continued from its checkpoint, or started from other weights; then the loop."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from osjax import models
from osjax.errors import UserError
from osjax.models.lora import LoRAConfig
from osjax.parallel import rules, sharding
from osjax.run import adapters, start
from osjax.run.config import dotted_keys, to_dataclass
from osjax.run.place import Place
from osjax.run.train_data import Batches
from osjax.training import checkpoint, health, loop, metrics, optimizer, state
from osjax.training.dashboards import Dashboard
from osjax.training.freeze import Freeze
from osjax.training.throughput import Throughput

log = logging.getLogger(__name__)
BASE = "base_checksum"  # beside a LoRA stage's config in its checkpoints: of the weights that it does not hold
MAY_CHANGE = ("steps", "mesh", "checkpoint", "health", "hang", "evaluate", "data.threads", "start", "sample")


@dataclass(frozen=True)
class Options:
    """What a whole run shares. profile: steps of an XProf trace. dashboards: get every line of metrics."""

    profile: int = 0
    dashboards: tuple[Dashboard, ...] = ()


def optimizer_config(cfg: ConfigDict, model_cfg: Any) -> optimizer.OptimizerConfig:
    """UserError for settings that cannot work, and for patterns in `freeze` that fit no parameter of the model."""
    found = to_dataclass(optimizer.OptimizerConfig, cfg.optimizer, "optimizer")
    freeze = to_dataclass(Freeze, cfg.freeze, "freeze")
    if freeze.params:
        freeze.trained(models.abstract_params(model_cfg))
    return replace(found, freeze=freeze)


def loop_config(name: str, cfg: ConfigDict, options: Options) -> loop.LoopConfig:
    return loop.LoopConfig(
        name,
        cfg.steps,
        save_every=cfg.checkpoint.every,
        eval_every=cfg.evaluate.every,
        health=to_dataclass(health.HealthConfig, cfg.health, "health"),
        hang_factor=cfg.hang.factor,
        hang_least_s=cfg.hang.least_s,
        profile_steps=options.profile,
    )


def train(
    name: str,
    cfg: ConfigDict,
    place: Place,
    mesh: Mesh,
    model_cfg: Any,
    make_step: Callable[[nn.Module, Any, optimizer.OptimizerConfig], Callable],
    batches: Callable[[], Batches],
    options: Options,
    evaluate: Callable[[state.TrainState], dict[str, float]] | None = None,
    axis_rules: Any = rules.TRANSFORMER,
    lora: LoRAConfig | None = None,
    throughput: Throughput | None = None,
    create: Callable[..., state.TrainState] = state.create,
    fill: Callable[[Any, Any], Any] = lambda now, shardings: now,
) -> state.TrainState | None:
    """Bring a stage to its last step, from wherever its checkpoints stand; the state there.

    A finished stage reads no data and gives None.

    create: makes the fresh state, as `state.create` does, which may carry more than one model. fill: puts into a fresh
    state, by its shardings, what comes from files beside the model's own weights.
    """
    store = open_store(name, cfg, place)
    try:
        if store.latest_step() == cfg.steps:
            return None
        opt = optimizer_config(cfg, model_cfg)
        tx = optimizer.make(opt)
        key = jax.random.key(cfg.seed)
        init = partial(models.init_params, model_cfg, key)
        if lora is not None:
            init = partial(adapters.init, lora, model_cfg, key)
        create = partial(create, init, tx, with_ema=opt.ema_decay > 0, freeze=opt.freeze)
        fresh = sharding.Init(create, mesh, rules=axis_rules)
        shardings = fresh.shardings
        rows = batches()
        saved, frozen = plain(cfg), None
        if lora is not None:
            frozen = adapters.base(start.base_leaves(cfg, model_cfg, place), lora, model_cfg, mesh, cfg.lora.base_dtype)
            saved[BASE] = adapters.checksum(frozen[0])
        if store.latest_step() is None:
            now = fresh.make()
            leaves = start.leaves_of(cfg, model_cfg, place, lora)
            now = fill(now if leaves is None else start.put(leaves, now, shardings, opt.freeze), shardings)
        else:
            _name_changes(name, store, saved)
            now, data = store.restore(checkpoint.abstract_like(nn.unbox(fresh.boxed), shardings))
            rows.set_state(data)
        if frozen is not None:
            now, shardings = (tree.replace(frozen=x) for tree, x in zip((now, shardings), frozen, strict=True))
        step = sharding.jit_step(make_step(models.build(model_cfg), tx, opt), shardings, mesh, axis_rules)
        return loop.run(
            loop_config(name, cfg, options),
            now,
            step,
            rows,
            sharding.random_key(cfg.seed, mesh),
            mesh,
            loop.Records(store, place.workdir, saved, rows.get_state, options.dashboards, throughput),
            evaluate=evaluate,
        )
    finally:
        store.close()


def count_parameters(model_cfg: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(models.abstract_params(model_cfg)))


def open_store(name: str, cfg: ConfigDict, place: Place) -> checkpoint.Checkpoints:
    return checkpoint.Checkpoints(place.of(name), cfg.checkpoint.keep, cfg.checkpoint.keep_every)


def plain(cfg: ConfigDict) -> dict[str, Any]:
    """A config as JSON values."""
    return json.loads(cfg.to_json_best_effort())


def _name_changes(name: str, store: checkpoint.Checkpoints, saved: dict[str, Any]) -> None:
    """Warn of keys that differ from those of the checkpoint: the loss may jump for a reason that nobody remembers."""
    before, now = ConfigDict(store.config()), ConfigDict(saved)
    if _value(before, BASE) != _value(now, BASE):
        raise UserError(f"{name} goes on with adapters of another model than `start` gives now: give that one again")
    keys = sorted({*dotted_keys(before), *dotted_keys(now)})
    changed = [k for k in keys if not k.startswith(MAY_CHANGE) and _value(before, k) != _value(now, k)]
    if changed:
        words = "; ".join(f"{k} was {_value(before, k)!r}, is {_value(now, k)!r}" for k in changed)
        log.warning("%s goes on with another config than it was saved with: %s", name, words)


def _value(cfg: ConfigDict, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(cfg, ConfigDict) or part not in cfg:
            return None
        cfg = cfg[part]
    return None if isinstance(cfg, ConfigDict) else cfg


def lines_of(name: str, place: Place) -> list[dict[str, Any]]:
    """The metrics of a stage."""
    return [line for line in metrics.read(place.workdir / "metrics.jsonl") if line["stage"] == name]
