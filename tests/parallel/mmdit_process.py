"""One of several processes that train a tiny MMDiT, for test_processes.py."""

from pathlib import Path

import jax
from jax.sharding import Mesh

from osjax.parallel import mesh as meshes
from osjax.parallel import sharding
from osjax.training import checkpoint, loop
from tests.training import tiny

BATCH = 8


def train(folder: Path, mesh: Mesh, until: int) -> None:
    """Up to step `until` on a mesh over all processes, from the newest checkpoint in the folder."""
    index, count = jax.process_index(), jax.process_count()
    state, abstract, step = tiny.start(mesh)
    store = checkpoint.Checkpoints(folder / "checkpoints")
    if store.latest_step() is not None:
        state, _ = store.restore(abstract)

    def rows(first):
        mine = slice(index * BATCH // count, (index + 1) * BATCH // count)
        for n in range(first, until):
            yield jax.tree.map(lambda x: x[mine], tiny.batch(BATCH, seed=n))

    try:
        batches, key = rows(int(state.step)), sharding.random_key(7, mesh)
        loop.run(loop.LoopConfig("tiny", until), state, step, batches, key, mesh, loop.Records(store, folder, {}))
    finally:
        store.close()


def main(argv: list[str]) -> None:
    address, count, index, folder, sizes, until = argv
    meshes.initialize(address, int(count), int(index))
    train(Path(folder), meshes.make(*map(int, sizes.split(","))), int(until))
    print("ended", jax.process_count(), len(jax.local_devices()))
