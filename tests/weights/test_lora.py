"""Adapters to files of other tools and back: the same bits, the same change of the original's matrices."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import lora
from osjax.weights import lora_file
from osjax.weights.leaves import of_params
from osjax.weights.lora import Adapters
from osjax.weights.lora_merge import merged
from osjax.weights.rules import whole
from tests.training import tiny

EVERY = lora.LoRAConfig(rank=3, alpha=6.0, targets=("*_blocks", "txt_in", "final_layer"))
CONFIGS = {
    "all": EVERY,
    "attention": lora.LoRAConfig(rank=4, alpha=2.0),
    "one part of a layer": lora.LoRAConfig(rank=2, alpha=2.0, targets=("single_blocks/mlp_in", "single_blocks/proj")),
}
LAYOUTS = {"open_sora_v2": weights.OPEN_SORA_V2, "flux": weights.FLUX}


def adapters(cfg, b=True):
    made = nn.unbox(lora.create(cfg, tiny.boxed(), jax.random.key(1)))
    rng = np.random.default_rng(0)
    return Adapters(cfg, jax.tree.map(lambda x: np.asarray(x) + (b * rng.standard_normal(x.shape)).astype("f"), made))


def pairs_in(path):
    """{module: change of its matrix}, read as any other tool would, from nothing but the file and its settings."""
    if path.suffix == ".safetensors":
        tensors, prefix = load_file(path), "diffusion_model."
        scale = {
            n: t / len(tensors[n.removesuffix("alpha") + "lora_A.weight"]) for n, t in tensors.items() if "alpha" in n
        }
        scale = {n.removeprefix(prefix).removesuffix(".alpha"): s for n, s in scale.items()}
    else:
        tensors, prefix = load_file(path / "adapter_model.safetensors"), "base_model.model."
        said = json.loads((path / "adapter_config.json").read_text())
        rank, alpha = said["rank_pattern"], said["alpha_pattern"]
        scale = {n: alpha.get(n, said["lora_alpha"]) / rank.get(n, said["r"]) for n in said["target_modules"]}
    changes = {}
    for name, s in scale.items():
        a, b = (tensors[f"{prefix}{name}.lora_{x}.weight"] for x in "AB")
        changes[name] = s * (b @ a)
    assert 2 * len(changes) == sum(".lora_" in name for name in tensors)
    return changes


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("cfg", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("place", ["folder", "one.safetensors"])
def test_a_file_holds_the_change_of_every_matrix_of_the_original_and_reads_back_bit_for_bit(
    tmp_path, cfg, layout, place
):
    given = adapters(cfg)
    files = lora_file.write(tmp_path / place, tiny.CONFIG, given, layout)
    base = tiny.host_params()
    after = lora.merged(lora.Adapted(base, given.tree, cfg.scale))
    before, after = (weights.to_torch(tiny.CONFIG, jax.device_get(tree), layout=layout) for tree in (base, after))
    changes = pairs_in(tmp_path / place)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in changes}
    for name, change in changes.items():
        got = after[f"{name}.weight"] - before[f"{name}.weight"]
        np.testing.assert_allclose(change, got, atol=2e-5)
        assert np.abs(change).max() > 0.1
    found = lora_file.read(tmp_path / place, tiny.CONFIG, layout)
    assert found.cfg == cfg and tiny.same(found.tree, given.tree)
    again = lora_file.write(tmp_path / f"again-{place}", tiny.CONFIG, found, layout)
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in files]


def test_fresh_adapters_read_back_although_b_is_zero(tmp_path):
    given = adapters(EVERY, b=False)
    lora_file.write(tmp_path / "a.safetensors", tiny.CONFIG, given)
    assert tiny.same(lora_file.read(tmp_path / "a.safetensors", tiny.CONFIG).tree, given.tree)


def test_leaves_with_adapters_are_the_merged_model_in_any_window():
    given, base = adapters(EVERY), tiny.host_params()
    want = of_params(jax.device_get(lora.merged(lora.Adapted(base, given.tree, EVERY.scale * 0.5))))
    got = merged(of_params(base), given, strength=0.5)
    rng = np.random.default_rng(0)
    for path, shape in got.shapes.items():
        ends = [sorted(rng.choice(n + 1, 2, replace=False)) for n in shape]
        for window in (whole(shape), tuple(slice(*map(int, pair)) for pair in ends)):
            np.testing.assert_allclose(got.read(path, window), want.read(path, window), atol=2e-6)


def foreign(tmp_path, names=("double_blocks.0.img_attn.q_proj", "single_blocks.1.v_mlp", "single_blocks.0.linear2")):
    """A file of another tool: pairs of unlike ranks and alphas, and a part of the layers only."""
    shapes, rng, tensors = weights.torch_shapes(tiny.CONFIG), np.random.default_rng(4), {}
    for rank, name in enumerate(names, 1):
        n_out, n_in = shapes[f"{name}.weight"]
        tensors[f"transformer.{name}.lora_down.weight"] = rng.standard_normal((rank, n_in)).astype(np.float16)
        tensors[f"transformer.{name}.lora_up.weight"] = rng.standard_normal((n_out, rank)).astype(np.float16)
        tensors[f"transformer.{name}.alpha"] = np.array(rank / 2 if rank < 3 else 6.0, np.float32)
    save_file(tensors, tmp_path / "foreign.safetensors")
    return tensors


def test_adapters_of_other_tools_change_the_same_matrices_by_the_same(tmp_path):
    tensors, base = foreign(tmp_path), tiny.host_params()
    found = lora_file.read(tmp_path / "foreign.safetensors", tiny.CONFIG)
    after = lora.merged(lora.Adapted(base, found.tree, found.cfg.scale))
    before, after = (weights.to_torch(tiny.CONFIG, jax.device_get(tree)) for tree in (base, after))
    seen = 0
    for name in before:
        up = tensors.get(f"transformer.{name.removesuffix('.weight')}.lora_up.weight")
        change = 0.0
        if up is not None and name.endswith(".weight"):
            root, seen = f"transformer.{name.removesuffix('.weight')}", seen + 1
            down = tensors[f"{root}.lora_down.weight"].astype(np.float32)
            change = tensors[f"{root}.alpha"] / len(down) * (up.astype(np.float32) @ down)
        np.testing.assert_allclose(after[name] - before[name], change, atol=1e-5)
    assert seen == 3


@pytest.mark.parametrize(
    "names, words",
    [
        (
            ("double_blocks.7.img_attn.q_proj",),
            "adapts double_blocks.7.img_attn.q_proj, which this model does not have",
        ),
        (("single_blocks.0.linear1",), "adapts single_blocks.0.linear1"),
    ],
)
def test_adapters_of_another_model_or_layout_are_named(tmp_path, names, words):
    shape = {f"{name}.weight": (8, 8) for name in names}
    tensors = {}
    for name in shape:
        root = "transformer." + name.removesuffix(".weight")
        tensors |= {f"{root}.lora_A.weight": np.ones((2, 8), "f"), f"{root}.lora_B.weight": np.ones((8, 2), "f")}
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=words):
        lora_file.read(tmp_path / "a.safetensors", tiny.CONFIG)


def test_what_is_no_adapter_or_of_other_sizes_is_refused(tmp_path):
    save_file({"img_in.weight": np.ones((3, 3), "f")}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="img_in.weight .* belongs to no LoRA"):
        lora_file.read(tmp_path / "model.safetensors", tiny.CONFIG)
    save_file({"img_in.lora_A.weight": np.ones((3, 3), "f")}, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="img_in has no pair"):
        lora_file.read(tmp_path / "half.safetensors", tiny.CONFIG)
    lora_file.write(tmp_path / "peft", tiny.CONFIG, adapters(EVERY))
    wide = models.config("mmdit", **{**vars(tiny.CONFIG), "mlp_ratio": 4.0})
    with pytest.raises(UserError, match="does not fit the model at double_blocks.0.img_mlp.0"):
        lora_file.read(tmp_path / "peft", wide)
    (tmp_path / "peft" / "adapter_config.json").write_text('{"peft_type": "LOHA"}')
    with pytest.raises(UserError, match="adapter_config.json is no config of an adapter"):
        lora_file.read(tmp_path / "peft", tiny.CONFIG)
