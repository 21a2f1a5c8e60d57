"""One of several processes of a run with checkpoints on hosts' disks, started by test_local_tier.py."""

import os
import signal
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from osjax.parallel import mesh as meshes
from osjax.parallel import sharding
from osjax.training import checkpoint, loop, optimizer, update
from osjax.training import state as states
from osjax.training.host_disk import HostDisk
from osjax.training.local_tier import LocalTier
from osjax.types import Axis

STEPS, EVERY, LOCAL = 22, 10, 2


class Rows:
    """Batches of this process, with a place. die: (process, step) of the one that kills itself, and before which."""

    def __init__(self, die):
        self.place, self.die = 0, die

    def __iter__(self):
        return self

    def __next__(self):
        if self.die == (jax.process_index(), self.place):
            os.kill(os.getpid(), signal.SIGKILL)
        rows = np.random.default_rng(self.place).standard_normal((8, 4)).astype(np.float32)
        self.place += 1
        time.sleep(0.02)
        return np.split(rows, jax.process_count())[jax.process_index()]


def main(argv: list[str]) -> None:
    """argv: address, how many, process, folder of the store, this host's own folder, mesh, process and step to die."""
    address, count, index, folder, disk, sizes, *die = argv
    meshes.initialize(address, int(count), int(index))
    mesh = meshes.make(*map(int, sizes.split(",")))
    cfg = optimizer.OptimizerConfig(lr=0.05, eps=1e-8, ema_decay=0.5)
    tx = optimizer.make(cfg)

    def init():
        w = nn.LogicallyPartitioned(jnp.arange(32.0).reshape(4, 8) / 32, (Axis.EMBED, None))
        return states.create(lambda: {"w": w, "b": jnp.zeros(8, jnp.bfloat16)}, tx, with_ema=True)

    def step(state, batch, key):
        def loss_fn(params, batch, key):
            return jnp.mean((batch @ params["w"] + params["b"]) ** 2)

        return update.apply(state, batch, jax.random.fold_in(key, state.step), loss_fn, tx, cfg)

    fresh, rows = sharding.Init(init, mesh), Rows(tuple(map(int, die)))
    store, local = checkpoint.Checkpoints(Path(folder) / "checkpoints"), LocalTier(HostDisk(Path(disk), int(index)))
    abstract, latest = checkpoint.abstract_like(nn.unbox(fresh.boxed), fresh.shardings), store.latest_step()
    nearer = local.restore(abstract, after=-1 if latest is None else latest)
    if nearer:
        now, data = nearer.state, nearer.data
    elif latest is not None:
        now, data = store.restore(abstract)
    else:
        now, data = fresh.make(), {"place": 0}
    rows.place = data["place"]
    print(f"began at {int(jax.device_get(now.step))} of the {'disks' if nearer else 'store'}", flush=True)
    records = loop.Records(store, Path(folder), {}, lambda: {"place": rows.place}, local=local)
    settings = loop.LoopConfig("stage", STEPS, save_every=EVERY, local_every=LOCAL)
    compiled = sharding.jit_step(step, fresh.shardings, mesh)
    try:
        loop.run(settings, now, compiled, rows, sharding.random_key(0, mesh), mesh, records)
    finally:
        store.close()
