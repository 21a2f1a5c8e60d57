"""Weights go to the devices part by part."""

import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from osjax import models, weights
from osjax.errors import UserError
from osjax.parallel import mesh, sharding
from osjax.weights import leaves, load, orbax_stream
from osjax.weights.rules import whole
from tests import golden
from tests.models.test_mmdit import LAYOUTS, config, tensors
from tests.weights.torch_files import write_old, write_zip

ROOT = Path(__file__).parents[2]


def shardings(cfg, **sizes):
    return sharding.of_boxed(models.abstract_params(cfg), mesh.make(**sizes))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("sizes", [dict(data=1, fsdp=2, sequence=2, tensor=2), dict(data=8)])
def test_every_device_gets_its_part_of_every_leaf(tmp_path, name, sizes):
    cfg, given = config(name), tensors(name)
    save_file(given, tmp_path / "w.safetensors")
    places = shardings(cfg, **sizes)
    got = load.place(load.open_leaves(cfg, tmp_path / "w.safetensors", layout=LAYOUTS[name]), places)
    want = weights.from_torch(cfg, given, layout=LAYOUTS[name])
    chex.assert_trees_all_equal(got, want)
    assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, got, places))
    kernel = got["single_blocks"]["mlp_in"]["kernel"]
    ways = 8 if sizes != dict(data=8) else 1
    assert kernel.addressable_shards[0].data.size == kernel.size // ways


def test_large_parts_are_put_together_on_the_device(monkeypatch):
    cfg, given = config("mmdit_a"), tensors("mmdit_a")
    monkeypatch.setattr(load, "PIECE", 2**19)  # bytes, so that these small leaves are large
    places = shardings(cfg, data=2, fsdp=2, devices=jax.devices()[:4])  # two devices hold the same part
    got = load.place(weights.torch_leaves(cfg, given), places, ml_dtypes.bfloat16)
    want = weights.from_torch(cfg, given)
    chex.assert_trees_all_equal(got, jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), want))


def test_misfits_are_listed_before_anything_is_read(tmp_path):
    cfg, given = config("mmdit_a"), tensors("mmdit_a")
    del given["img_in.bias"]
    given |= {"surplus": np.zeros(3, np.float32), "txt_in.bias": np.zeros(7, np.float32)}
    save_file(given, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as error:
        load.open_leaves(cfg, tmp_path / "w.safetensors")
    for text in ("missing img_in.bias", "unexpected surplus", "txt_in.bias has shape (7,)"):
        assert text in str(error.value)


def test_checkpoints_open_like_files(tmp_path):
    cfg = config("mmdit_a")
    params = weights.from_torch(cfg, tensors("mmdit_a"))
    orbax_stream.save(tmp_path / "c", leaves.of_params(params), {})
    for path in (tmp_path / "c", tmp_path / "c" / "0", tmp_path / "c" / "0" / "params"):
        got = load.place(load.open_leaves(cfg, path), shardings(cfg, data=1, fsdp=8))
        chex.assert_trees_all_equal(got, params)
    with pytest.raises(UserError, match="cond_in/bias is .* there and nothing in the model"):
        load.open_leaves(config("mmdit_b"), tmp_path / "c")
    for chunk in (tmp_path / "c").rglob("d/*"):
        if chunk.stat().st_size > 2**16:
            chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    with pytest.raises(UserError, match="damaged|no readable"):
        load.place(load.open_leaves(cfg, tmp_path / "c"), shardings(cfg, data=8))


def test_text_towers_are_found_in_files_that_hold_more():
    fields = golden.read_json("manifest_clip_tiny")["config"]
    cfg = models.config(
        "clip_text", **{k: v for k, v in fields.items() if k in models.config_class("clip_text").__dataclass_fields__}
    )
    names = weights.torch_shapes(cfg)
    more = {"vision_model.weight": 1, "logit_scale": 1, "text_model.embeddings.position_ids": 1}
    assert load.of_model(cfg, {**names, **more}).keys() == names.keys()


def test_lpips_is_put_together_from_its_two_published_files(tmp_path):
    cfg = models.config("lpips", chns=(4, 6, 8, 8, 8))
    given = {name: golden.generate(name, shape) for name, shape in weights.torch_shapes(cfg).items()}
    features = {f"features.{n.split('.', 2)[2]}": t for n, t in given.items() if n.startswith("net.")}
    write_old(tmp_path / "vgg16-397923af.pth", {**features, "classifier.0.bias": np.ones(3, np.float32)})
    write_zip(tmp_path / "vgg.pth", {n: t for n, t in given.items() if n.startswith("lin")})
    found = load.open_leaves(cfg, tmp_path)
    want = flatten_dict(weights.from_torch(cfg, given))
    for path, shape in found.shapes.items():
        if path not in (("shift",), ("scale",)):  # constants of the original, not in any file
            np.testing.assert_array_equal(found.read(path, whole(shape)), want[path])


MEASURE = """
import resource, sys
import jax, ml_dtypes, numpy as np
from osjax import models
from osjax.parallel import mesh, sharding
from osjax.weights import load

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

cfg = models.config("mmdit", hidden_size=1024, num_heads=8, depth=0, depth_single_blocks=int(sys.argv[2]))
places = sharding.of_boxed(models.abstract_params(cfg), mesh.make(data=1, fsdp=8))
jax.block_until_ready(jax.device_put(np.ones(3), next(iter(jax.tree.leaves(places))).mesh.devices.flat[0]))
leaves = load.open_leaves(cfg, sys.argv[1])
before = peak()
params = load.place(leaves, places)
size = sum(x.nbytes for x in jax.tree.leaves(params)) / 2**20
print(size, peak() - before)
"""


def test_the_host_holds_little_beside_what_the_devices_hold(tmp_path):
    """The devices are this host's memory here: what the load takes beyond their bytes is what it needs itself."""
    from tests.cli.test_convert import write_holes

    cfg = models.config("mmdit", hidden_size=1024, num_heads=8, depth=0, depth_single_blocks=20)
    write_holes(tmp_path / "w.safetensors", weights.torch_shapes(cfg))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "w.safetensors"), "20"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stderr
    size, taken = map(float, result.stdout.split())
    assert size > 450 and taken - size < 150, (size, taken)  # the largest leaf alone has 160 MB
