"""A tiny MMDiT over one, then two, then one process: each goes on from the other's checkpoint, losses as of one."""

import jax
import numpy as np
import pytest

from osjax.parallel import host
from osjax.training import checkpoint, metrics
from tests.parallel import mmdit_process, processes
from tests.training import tiny

pytestmark = pytest.mark.timeout(900)


def run_two(folder, until):
    """Two processes of two devices each, up to this step; what they printed."""
    address = f"localhost:{processes.free_port()}"
    argv = [[address, "2", str(index), str(folder), "1,2,2,1", str(until)] for index in range(2)]
    return processes.together(mmdit_process.main, argv, folder / "logs", devices=2)


def of_one_device(first, until, state=None):
    """Losses of the same steps on one device, and the state after them."""
    mesh = tiny.single()
    fresh, _, step = tiny.start(mesh)
    state, losses = state or fresh, []
    for n in range(first, until):
        batch = host.to_global(tiny.batch(mmdit_process.BATCH, seed=n), mesh)
        state, found = step(state, batch, tiny.run_key(mesh))
        losses.append(float(found["loss"]))
    return losses, state


def test_one_process_then_two_then_one_train_as_one(tmp_path):
    mmdit_process.train(tmp_path, tiny.mesh_of(2, 2, 1, 1), 3)
    said = run_two(tmp_path, 6)
    assert [out.splitlines()[-1] for out in said] == ["ended 2 2"] * 2  # gloo talks before that
    lines = metrics.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(6))
    want, end = of_one_device(0, 6)
    got = [line["loss"] for line in lines]
    np.testing.assert_allclose(got, want, rtol=2e-5)
    assert not np.allclose(got[1:], want[:-1], rtol=1e-2)  # each step's loss is its own

    store = checkpoint.Checkpoints(tmp_path / "checkpoints")
    state, _ = store.restore(tiny.start(tiny.single())[1])
    store.close()
    assert int(state.step) == 6
    assert tiny.worst(jax.device_get(state.ema), jax.device_get(end.ema)) < 1e-4
    after, _ = of_one_device(6, 7, state)
    np.testing.assert_allclose(after, of_one_device(6, 7, end)[0], rtol=2e-5)
