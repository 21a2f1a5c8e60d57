"""What a checkpoint costs a run: seconds that `save` blocks, and how much slower steps are while it is written.

`python -m tests.measures.saving [FOLDER] [--elsewhere]`; 12.5 million parameters, so that state, moments and average
are 200 MB. --elsewhere: a step is a second of waiting, as for a host whose accelerators compute; without it the step
and the writer share the host's processors.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from osjax.parallel import mesh as meshes
from osjax.parallel import sharding
from osjax.training import checkpoint, optimizer, update
from osjax.training import state as states

WIDTH, LAYERS, ROWS = 1024, 12, 128
ELSEWHERE_S = 1.0
ADAM = optimizer.OptimizerConfig(lr=1e-4, eps=1e-8, ema_decay=0.99)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--elsewhere", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        measure(Path(folder), elsewhere=args.elsewhere)


def measure(folder: Path, rounds: int = 3, elsewhere: bool = False) -> None:
    mesh = meshes.make(devices=jax.devices()[:1])
    tx = optimizer.make(ADAM)

    def init():
        keys = jax.random.split(jax.random.key(0), LAYERS)
        params = {f"layer{i}": jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5 for i, key in enumerate(keys)}
        return states.create(lambda: params, tx, with_ema=True)

    def loss(params, batch, key):
        for kernel in params.values():
            batch = jnp.tanh(batch @ kernel)
        return jnp.mean(batch**2)

    def pause(x):
        time.sleep(ELSEWHERE_S)
        return x

    def step(state, batch, key):
        return update.apply(state, batch, key, loss, tx, ADAM)

    fresh = sharding.Init(init, mesh)
    compiled = sharding.jit_step(step, fresh.shardings, mesh)
    now, key = fresh.make(), sharding.random_key(0, mesh)
    batch = jax.device_put(jnp.ones((ROWS, WIDTH)), sharding.batch_sharding(mesh))
    size = sum(x.nbytes for x in jax.tree.leaves(now))
    store = checkpoint.Checkpoints(folder / "checkpoints")

    # It leaves the state alone: on a CPU the writer reads the very arrays of the state, and a step that is given them
    # copies them first (0.1 to 0.3 s here, once a save). Accelerators have copied them off by then.
    waiting = jax.jit(lambda x: jax.pure_callback(pause, x, x))

    def timed(state):
        began = time.perf_counter()
        if elsewhere:
            jax.block_until_ready(waiting(state.step))
        else:
            state, metrics = compiled(state, batch, key)
            jax.block_until_ready(metrics["loss"])
        return state, time.perf_counter() - began

    quiet, busy, blocked, written = [], [], [], []
    now, _ = timed(now)
    for number in range(rounds):
        for _ in range(5):
            now, seconds = timed(now)
            quiet.append(seconds)
        began = time.perf_counter()
        store.save(number, now, None, {})
        blocked.append(time.perf_counter() - began)
        while store._manager.is_saving_in_progress() or store._sealing.is_alive():
            now, seconds = timed(now)
            busy.append(seconds)
        written.append(time.perf_counter() - began)
        store.wait()
    store.close()
    usual, slower = statistics.median(quiet), statistics.median(busy)
    stop, whole = statistics.median(blocked), statistics.median(written)
    print(f"state {size / 1e6:.0f} MB; step {usual * 1e3:.0f} ms, {slower * 1e3:.0f} ms while a checkpoint is written")
    print(f"save() blocks {stop * 1e3:.0f} ms; written and sealed after {whole:.1f} s")


if __name__ == "__main__":
    main()
