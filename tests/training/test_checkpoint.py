"""Checkpoints: bit-exact continuation, other meshes, half-written ones, and messages."""

import json

import jax
import numpy as np
import pytest

from osjax.errors import UserError
from osjax.parallel import sharding
from osjax.parallel.host import to_global
from osjax.training import checkpoint, optimizer
from osjax.weights import load
from tests.training import tiny


@pytest.fixture
def store(tmp_path):
    made = checkpoint.Checkpoints(tmp_path / "checkpoints")
    yield made
    made.close()


@pytest.fixture(scope="module")
def trained():
    """Two steps on (2, 2, 2, 1): (mesh, state after one, state after two, abstract state, step). States on the host."""
    mesh = tiny.mesh_of(2, 2, 2, 1)
    state, abstract, step = tiny.start(mesh)
    kept = []
    for seed in range(2):
        state, _ = step(state, to_global(tiny.batch(seed=seed), mesh), tiny.run_key(mesh))
        kept.append(jax.device_get(state))
    return mesh, *kept, abstract, step


def put(state, abstract):
    return jax.tree.map(lambda x, a: jax.device_put(x, a.sharding), state, abstract)


def test_training_continues_bit_for_bit_from_a_checkpoint(store, trained):
    mesh, first, second, abstract, step = trained
    store.save(1, put(first, abstract), {"place": 8}, {"lr": 1e-3, "nested": {"a": [1, 2]}})
    store.wait()
    state, data = store.restore(abstract)
    assert tiny.same(state, first) and data == {"place": 8} and store.config() == {"lr": 1e-3, "nested": {"a": [1, 2]}}
    key = tiny.run_key(mesh)
    again, _ = step(state, to_global(tiny.batch(seed=1), mesh), key)
    assert tiny.same(again, second)
    other, _ = step(put(first, abstract), to_global(tiny.batch(seed=2), mesh), key)
    assert not tiny.same(other.params, second.params)


def test_a_checkpoint_opens_on_another_mesh(store, trained):
    _, first, _, abstract, _ = trained
    store.save(1, put(first, abstract), None, {})
    store.wait()
    mesh = tiny.mesh_of(1, 2, 1, 2)
    _, elsewhere, _ = tiny.start(mesh)
    state, data = store.restore(elsewhere)
    assert tiny.same(state, first) and data == {}
    at_home = jax.tree.map(lambda x, a: x.sharding == a.sharding, state, elsewhere)
    assert all(jax.tree.leaves(at_home))
    kernel = state.params["single_blocks"]["mlp_in"]["kernel"]
    assert kernel.sharding.mesh.shape["tensor"] == 2 and not kernel.sharding.is_fully_replicated


@pytest.mark.parametrize("ema", [True, False])
def test_weights_alone_can_be_read(store, trained, ema):  # as sampling and the next stage do
    _, first, _, abstract, _ = trained
    store.save(1, put(first, abstract), None, {})
    store.wait()
    leaves = load.open_leaves(tiny.CONFIG, store.folder, average=ema)
    got = load.place(leaves, jax.tree.map(lambda x: x.sharding, abstract.params))
    assert tiny.same(got, first.ema if ema else first.params)
    assert not tiny.same(got, first.params if ema else first.ema)


def test_a_half_written_checkpoint_is_not_seen(tmp_path, trained):
    _, first, _, abstract, _ = trained
    store = checkpoint.Checkpoints(tmp_path)
    store.save(1, put(first, abstract), None, {})
    store.close()
    half = next(p for p in tmp_path.iterdir() if p.name == "1")
    # What a kill leaves: a folder under the writer's temporary name, with some of the files.
    (tmp_path / "2.orbax-checkpoint-tmp-7").mkdir()
    (tmp_path / "2.orbax-checkpoint-tmp-7" / "state").mkdir()
    again = checkpoint.Checkpoints(tmp_path)
    assert half.exists() and again.latest_step() == 1
    assert tiny.same(again.restore(abstract)[0], first)
    again.close()


def two_saved(folder, trained):
    """Checkpoints of step 1 and 2, closed."""
    _, first, second, abstract, _ = trained
    store = checkpoint.Checkpoints(folder)
    store.save(1, put(first, abstract), {"place": 1}, {})
    store.save(2, put(second, abstract), {"place": 2}, {})
    store.close()
    return first, second, abstract


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize("harm", [flip_a_bit, truncate, lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_set_aside_loudly_for_the_one_before(tmp_path, trained, caplog, harm):
    first, second, abstract = two_saved(tmp_path / "c", trained)
    harm(largest_file(tmp_path / "c" / "2"))
    again = checkpoint.Checkpoints(tmp_path / "c")
    assert again.latest_step() == 1 and "2 is set aside" in caplog.text
    state, data = again.restore(abstract)
    assert tiny.same(state, first) and not tiny.same(state, second) and data == {"place": 1}
    assert (tmp_path / "c" / "2.damaged").is_dir()  # nothing is thrown away
    again.save(2, put(second, abstract), {"place": 2}, {})  # the step can be done and saved again
    again.close()
    assert tiny.same(checkpoint.Checkpoints(tmp_path / "c").restore(abstract)[0], second)


def test_an_unsealed_checkpoint_that_does_not_read_gives_way_to_the_one_before(tmp_path, trained, caplog):
    first, _, abstract = two_saved(tmp_path / "c", trained)
    (tmp_path / "c.seals" / "2.json").unlink()  # killed between the commit and the seal
    for path in (tmp_path / "c" / "2" / "params").rglob("*"):
        if path.is_file() and path.parent.name == "d":  # where the arrays' bytes lie, some of them twice
            truncate(path)
    again = checkpoint.Checkpoints(tmp_path / "c")
    state, _ = again.restore(abstract)
    assert tiny.same(state, first) and "set aside" in caplog.text
    again.close()


def test_a_sound_checkpoint_of_another_model_is_not_set_aside(tmp_path, trained):
    _, _, abstract = two_saved(tmp_path / "c", trained)
    plain = tiny.start(tiny.single(), optimizer.OptimizerConfig(schedule="cosine", decay_steps=9, ema_decay=0.9))[1]
    again = checkpoint.Checkpoints(tmp_path / "c")
    with pytest.raises(UserError, match="does not fit this config"):
        again.restore(plain.replace(opt_state=(*plain.opt_state, plain.step)))
    assert again.latest_step() == 2
    assert again.versions()["jax"] == jax.__version__
    again.close()


def test_only_the_newest_are_kept_and_the_same_step_twice_is_one(tmp_path):
    store = checkpoint.Checkpoints(tmp_path, keep=2)
    state, _, _ = tiny.start(tiny.single())
    for step in (1, 2, 3, 3):
        store.save(step, state, {"step": step}, {})
    store.close()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["2", "3"]


def test_no_checkpoint_and_a_wrong_one_say_what_to_do(store, trained):
    _, first, _, abstract, _ = trained
    with pytest.raises(UserError, match="no complete checkpoint"):
        store.restore(abstract)
    store.save(1, put(first, abstract), None, {})
    store.wait()
    wide = jax.tree.map(lambda x: x.update(shape=(*x.shape[:-1], x.shape[-1] + 8)) if x.shape else x, abstract)
    difference = r"does not fit this config \(cond_in/bias is \(64,\) there and \(72,\) in the model\)"
    with pytest.raises(UserError, match=difference):
        store.restore(wide)


def test_a_stage_without_average_saves_and_restores_without_one(store):
    mesh = tiny.single()
    state, abstract, _ = tiny.start(mesh, optimizer.OptimizerConfig(ema_decay=0.0))
    assert state.ema is None
    store.save(5, state, None, {})
    store.wait()
    found, _ = store.restore(abstract)
    assert found.ema is None and tiny.same(found, state)
    with_average = tiny.start(mesh)[1]
    assert with_average.ema is not None
    with pytest.raises(UserError, match="does not fit this config"):
        store.restore(with_average)


def test_data_and_config_are_plain_json_on_disk(store, trained, tmp_path):
    _, first, _, abstract, _ = trained
    store.save(1, put(first, abstract), {"seed": 3}, {"lr": 0.5})
    store.wait()
    files = [p for p in tmp_path.rglob("metadata") if p.parent.name in ("data", "config")]
    found = {p.parent.name: json.loads(p.read_text()) for p in files}
    assert found == {"data": {"seed": 3}, "config": {"lr": 0.5}}


def test_abstract_like_keeps_shapes_and_takes_the_shardings():
    place = sharding.replicated(tiny.single())
    got = checkpoint.abstract_like({"a": np.zeros((2, 3), np.float32)}, {"a": place})["a"]
    assert (got.shape, got.dtype, got.sharding) == ((2, 3), np.float32, place)
