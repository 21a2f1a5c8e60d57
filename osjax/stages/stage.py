"""One stage of a run: fresh, continued from its checkpoint, or started from other weights; then the loop."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import optax

from osjax import models
from osjax.parallel import rules, sharding
from osjax.parallel.host import to_global
from osjax.parts import lineage, lora
from osjax.parts.place import Place
from osjax.parts.run import Recipe
from osjax.stages import host_disks, start, teacher
from osjax.stages.data import Batches
from osjax.training import checkpoint, loop, metrics, optimizer, state, twice
from osjax.training.copies import copied
from osjax.training.dashboards import Dashboard
from osjax.training.goodput import Ledger
from osjax.training.local_tier import LocalTier
from osjax.training.throughput import Throughput
from osjax.types import Json, ModelConfig, Tree

log = logging.getLogger(__name__)
READERS = ("data.threads", "data.workers", "data.timeout_s")  # who reads changes no batch
MAY_CHANGE = ("steps", "mesh", "checkpoint", "health", "hang", "evaluate", *READERS, "start", "sample")
FREE = ("modes.", "autoencoder.config.", "lpips.config.", "dinov2.config.")  # groups whose keys are the user's choice


@dataclass(frozen=True)
class Options:
    """What a whole run shares.

    profile: steps of an XProf trace. dashboards: get every line of metrics. began: seconds since 1970 from which the
    run's time counts; None: from now on. ledger: of where the time goes.
    """

    profile: int = 0
    dashboards: tuple[Dashboard, ...] = ()
    began: float | None = None
    ledger: Ledger = field(default_factory=Ledger)


@dataclass(frozen=True)
class Work:
    """What stages of one kind do in their own way.

    make_step: makes the train step of (module, update rule, optimiser's settings). batches: gives the endless batches;
    called only where there is something to train. evaluate: measures the state on held-out clips. create: makes the
    fresh state, as `state.create` does, which may carry more than one model. fill: puts into a fresh state, by its
    shardings, what comes from files beside the model's own weights. axis_rules: of the model's logical axes.
    throughput: as `loop.Records` takes it. data: gives what tells the data set from others, for dashboards.
    """

    make_step: Callable[[nn.Module, optax.GradientTransformation, optimizer.OptimizerConfig], Callable]
    batches: Callable[[], Batches]
    evaluate: Callable[[state.TrainState], dict[str, float]] | None = None
    create: Callable[..., state.TrainState] = state.create
    fill: Callable[[Tree, Tree], state.TrainState] = lambda now, shardings: now
    axis_rules: Mapping[str, rules.MeshAxes] = field(default_factory=lambda: rules.TRANSFORMER)
    throughput: Throughput | None = None
    data: Callable[[], Json] = dict


def loop_config(recipe: Recipe, options: Options) -> loop.LoopConfig:
    """What the loop is told of a stage. recipe: the stage. options: what the whole run shares."""
    keys = recipe.keys
    return loop.LoopConfig(
        recipe.name,
        keys.steps,
        save_every=keys.checkpoint.every,
        local_every=keys.checkpoint.local_every,
        eval_every=keys.evaluate.steps,
        health=keys.health,
        hang_factor=keys.hang.factor,
        hang_least_s=keys.hang.least_s,
        profile_steps=options.profile,
    )


def train(recipe: Recipe, place: Place, work: Work, options: Options) -> state.TrainState | None:
    """Bring a stage to its last step, from wherever its checkpoints stand; the state there.

    A finished stage reads no data and gives None. recipe: what it trains, and how. place: where the run keeps things.
    work: what its kind does in its own way. options: what the whole run shares. UserError where nothing fits to start
    from, and as `loop.run` raises it.
    """
    asked = recipe.keys.checkpoint
    copies = copied(place.copy_of(recipe.name), place.of(recipe.name), asked.keep, asked.keep_every, recipe.name)
    with copies, contextlib.closing(open_store(recipe, place)) as store:
        store.remove_half_made()  # of a process that was killed; nobody else writes here now
        if store.latest_step() == recipe.keys.steps:
            return None
        local = host_disks.open_tier(recipe, place)
        ready = _ready(recipe, place, store, work, options.ledger, local)
        begun = ready.begin()
        for dashboard in options.dashboards:
            dashboard.begin(recipe.name, ready.saved, {**lineage.of_stage(ready.saved), **work.data()})
        ended = loop.run(
            loop_config(recipe, options),
            begun,
            ready.step,
            ready.rows,
            sharding.random_key(recipe.keys.seed, recipe.mesh),
            recipe.mesh,
            loop.Records(
                store,
                place.workdir,
                ready.saved,
                ready.rows.get_state,
                options.dashboards,
                work.throughput,
                options.ledger,
                local,
            ),
            evaluate=work.evaluate,
        )
        if local:
            local.clear()
        return ended


def replay(recipe: Recipe, place: Place, work: Work) -> str | None:
    """Do the step after a stage's newest checkpoint twice, each time read anew; what is wrong, None where nothing is.

    recipe, place, work: as `train` takes them. UserError where there is no checkpoint, or where it cannot be read.
    """
    store = open_store(recipe, place)
    try:
        at = store.require(None)
        ready = _ready(recipe, place, store, work, Ledger())
        key, now = sharding.random_key(recipe.keys.seed, recipe.mesh), ready.begin()
        batch = to_global(next(ready.rows), recipe.mesh)
        first = twice.of_results(*ready.step(now, batch, key))
        second = twice.of_results(*ready.step(ready.begin(), batch, key))
        names = twice.different(first, second)
        return twice.words(at, names) if names else None
    finally:
        store.close()


@dataclass(frozen=True)
class _Ready:
    """A stage that can begin.

    begin: reads or makes the state, and sets `rows` to its place. step: compiled when it is called. saved: its config,
    as checkpoints hold it.
    """

    begin: Callable[[], state.TrainState]
    rows: Batches
    step: sharding.Step
    saved: Json


def _ready(
    recipe: Recipe,
    place: Place,
    store: checkpoint.Checkpoints,
    work: Work,
    ledger: Ledger,
    local: LocalTier | None = None,
) -> _Ready:
    # What follows only traces: shapes and shardings are known before anything is allocated, so that arrays are made, or
    # read, in their places.
    opt, adapters = recipe.optimizer, recipe.adapters
    tx, fresh = fresh_state(recipe, work.create, work.axis_rules)
    shardings = fresh.shardings
    ledger.tell(recipe.name, "start")
    rows = work.batches()
    made = work.make_step(models.build(recipe.model), tx, opt)  # after the batches, which know what no text is
    ledger.tell(recipe.name, "prepare")
    saved, frozen = dict(recipe.saved), None
    if recipe.taught is not None and adapters is None:
        base = start.base_leaves(recipe, place)
        frozen = teacher.read(base, recipe)
        saved |= {start.BASE: lora.checksum(frozen[0]), start.CORNERS: start.corners(recipe, base)}
    if adapters is not None:
        base = start.base_leaves(recipe, place)
        frozen = lora.base(base, adapters, recipe.model, recipe.mesh, recipe.keys.lora.base_dtype)
        # Checkpoints hold the adapters alone. The sum tells whether a later run puts the same model beneath them.
        saved |= {start.BASE: lora.checksum(frozen[0]), start.CORNERS: start.corners(recipe, base)}
    # Neither `fresh` nor a checkpoint knows of the model beneath.
    whole = shardings if frozen is None else shardings.replace(frozen=frozen[1])

    def begin() -> state.TrainState:
        abstract, latest = checkpoint.abstract_like(nn.unbox(fresh.boxed), shardings), store.latest_step()
        nearer = local and local.restore(abstract, after=-1 if latest is None else latest)
        if latest is None and not nearer:
            now = fresh.make()
            leaves = start.leaves_of(recipe, place)
            now = now if leaves is None else start.put(leaves, now, shardings, opt.freeze)
            now = work.fill(now, shardings)
        else:  # the checkpoint holds what `start` and `fill` once gave, all but a model beneath adapters
            _name_changes(recipe, nearer.config if nearer else store.config(), saved)
            now, data = (nearer.state, nearer.data) if nearer else store.restore(abstract)
            rows.set_state(data)
            ledger.tell(recipe.name, "restore")
        if local:
            local.forget_after(int(jax.device_get(now.step)))  # what did not count must not be mixed with what follows
        return now if frozen is None else now.replace(frozen=frozen[0])

    return _Ready(begin, rows, sharding.jit_step(made, whole, recipe.mesh, work.axis_rules), saved)


def fresh_state(
    recipe: Recipe, create: Callable[..., state.TrainState], axis_rules: Mapping[str, rules.MeshAxes]
) -> tuple[optax.GradientTransformation, sharding.Init]:
    """The update rule of a stage, and its fresh state, traced: shapes and shardings, nothing is allocated.

    recipe: of the stage. create, axis_rules: as `Work` has them.
    """
    opt, adapters = recipe.optimizer, recipe.adapters
    tx = optimizer.make(opt)
    key = jax.random.key(recipe.keys.seed)
    init = partial(models.init_params, recipe.model, key)
    if adapters is not None:
        init = partial(lora.init, adapters, recipe.model, key)
    made = partial(create, init, tx, with_ema=opt.ema_decay > 0, freeze=opt.freeze)
    return tx, sharding.Init(made, recipe.mesh, rules=axis_rules)


def count_parameters(model_cfg: ModelConfig) -> int:
    """How many parameters a model has. model_cfg: of any family."""
    return sum(x.size for x in jax.tree.leaves(models.abstract_params(model_cfg)))


def open_store(recipe: Recipe, place: Place) -> checkpoint.Checkpoints:
    """The checkpoints of a stage, to be closed. place: where the run keeps things."""
    asked = recipe.keys.checkpoint
    return checkpoint.Checkpoints(place.of(recipe.name), asked.keep, asked.keep_every)


def _name_changes(recipe: Recipe, saved: Json, now: Mapping[str, Any]) -> None:
    """Warn of keys that differ from those of the checkpoint, `saved`: the loss may jump and nobody remembers why.

    Keys that the checkpoint's osjax did not have yet, or that this one has no more, are no change of the user's.
    """
    before, after = flat(saved), flat(now)
    start.check_base(recipe.name, before, {key: now[key] for key in (start.BASE, start.CORNERS) if key in now})
    changed = [
        key
        for key in sorted({*before, *after})
        if (key in before and key in after) or key.startswith(FREE)
        if before.get(key) != after.get(key) and not key.startswith(MAY_CHANGE)
    ]
    if changed:
        words = "; ".join(f"{k} was {before.get(k)!r}, is {after.get(k)!r}" for k in changed)
        log.warning("%s goes on with another config than it was saved with: %s", recipe.name, words)


def flat(values: Mapping[str, Any], prefix: str = "") -> Json:
    """Nested plain values by dotted keys, `prefix` ahead of each; groups themselves are left out."""
    leaves: Json = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves


def lines_of(name: str, place: Place) -> list[Json]:
    """The metrics of a stage, a line a step. name: of the stage. place: where the run keeps things."""
    return [line for line in metrics.read(place.workdir / "metrics.jsonl") if line["stage"] == name]
