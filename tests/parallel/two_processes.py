"""One of two processes of a run, started by test_two_processes.py."""

import os
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from osjax.parallel import mesh as meshes
from osjax.parallel import sharding
from osjax.training import checkpoint, loop, optimizer, update
from osjax.training import state as states

STEPS = 30


def rows(step):
    """The global batch of a step."""
    return np.random.default_rng(step).standard_normal((8, 4)).astype(np.float32)


def train(folder: Path, stop_at: int | None, pace_s: float = 0.0) -> None:
    """Train over all processes; process 0 sends itself SIGTERM before step `stop_at`. pace_s: least time of a batch."""
    mesh = meshes.make(2, 2)
    cfg = optimizer.OptimizerConfig(lr=0.05, eps=1e-8, ema_decay=0.5)
    tx = optimizer.make(cfg)
    index, count = jax.process_index(), jax.process_count()

    def init():
        return states.create(lambda: {"w": jnp.ones(4)}, tx, with_ema=True)

    def step(state, batch, key):
        def loss_fn(params, batch, key):
            return jnp.mean((batch @ params["w"]) ** 2)

        return update.apply(state, batch, jax.random.fold_in(key, state.step), loss_fn, tx, cfg)

    def batches(first):
        for n in range(first, STEPS):
            if n == stop_at and index == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            if stop_at is not None and n >= stop_at:
                time.sleep(0.2)  # the processes agree within a second or two
            time.sleep(pace_s)
            yield np.split(rows(n), count)[index]

    fresh = sharding.Init(init, mesh)
    shardings = fresh.shardings
    store = checkpoint.Checkpoints(folder / "checkpoints")
    now = fresh.make()
    if store.latest_step() is not None:
        now, _ = store.restore(checkpoint.abstract_like(fresh.boxed, shardings))
    key = sharding.random_key(0, mesh)
    compiled = sharding.jit_step(step, shardings, mesh)
    settings = loop.LoopConfig("two", STEPS, save_every=5)
    try:
        loop.run(settings, now, compiled, batches(int(now.step)), key, mesh, loop.Records(store, folder, {}))
    except loop.Interrupted as stopped:
        print(stopped)
    finally:
        store.close()


def main(argv: list[str]) -> None:
    address, index, folder, stop, pace, *count = argv
    meshes.initialize(address, int(*count or "2"), int(index))
    train(Path(folder), int(stop) if stop != "never" else None, float(pace))
