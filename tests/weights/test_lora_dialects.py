"""Adapters in the dialects of other tools: each is read as that tool meant it, or refused by name."""

import json
import math

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from osjax import weights
from osjax.errors import UserError
from osjax.models import lora
from osjax.weights import adapters, lora_file, safetensors_file
from tests.training import tiny
from tests.weights.test_lora import EVERY
from tests.weights.test_lora import adapters as made

Q, V, MLP = "double_blocks.0.img_attn.q_proj", "double_blocks.0.txt_attn.v_proj", "double_blocks.0.img_mlp.0"
QKV = "double_blocks.0.img_attn.qkv"
SHAPES = weights.torch_shapes(tiny.CONFIG) | weights.torch_shapes(tiny.CONFIG, layout=weights.FLUX)
ENDLESS = r"([a-z._0-9]|[a-z0-9._]{2}|[a-z0-9._]{3})+\d\d\d"  # a pattern that tries for hours


def pair(name=Q, rank=2, seed=0):
    n_out, n_in = SHAPES[f"{name}.weight"]
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rank, n_in)).astype("f"), rng.standard_normal((n_out, rank)).astype("f")


def change(path, layout=weights.OPEN_SORA_V2):
    """{layer: what a file adds to its matrix}, of the layers that change."""
    found, base = lora_file.read(path, tiny.CONFIG, layout), tiny.host_params()
    after = lora.merged(lora.Adapted(base, found.tree, found.cfg.scale))
    before, after = (weights.to_torch(tiny.CONFIG, jax.device_get(x), layout=layout) for x in (base, after))
    moved = {n.removesuffix(".weight"): after[n] - before[n] for n in before}
    return {name: x for name, x in moved.items() if np.abs(x).max() > 0}


def same_change(got, want):
    assert got.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, atol=3e-5 * np.abs(x).max())
        assert np.abs(got[name] - 1.1 * x).max() > 0.05 * np.abs(x).max()  # another scale would not pass


def peft(folder, layers, prefix="base_model.model.", **settings):
    folder.mkdir()
    tensors = {f"{prefix}{n}.lora_{x}.weight": t for n, ab in layers.items() for x, t in zip("AB", ab, strict=True)}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **settings}))
    return folder


@pytest.mark.parametrize(
    "settings, scales",
    [
        ({"r": 2, "lora_alpha": 8}, (4, 4)),
        ({"r": 2, "lora_alpha": 8, "alpha_pattern": {"q_proj": 32}}, (16, 4)),  # the end of a name
        ({"r": 2, "lora_alpha": 8, "alpha_pattern": {r"double_blocks\.\d+\.txt_attn.*": 32}}, (4, 16)),
        ({"r": 2, "lora_alpha": 8, "alpha_pattern": {"^double_blocks.0.img_attn.q_proj": 2}}, (1, 4)),
        (
            {"r": 2, "lora_alpha": 8, "alpha_pattern": {"proj": 32, "attn": 32}},
            (4, 4),
        ),  # neither is an end from a dot on
        ({"r": 2, "lora_alpha": 8, "alpha_pattern": {"img_attn.*": 2, "q_proj": 32}}, (1, 4)),  # the first that fits
        ({"r": 2, "lora_alpha": 8, "use_rslora": True}, (8 / math.sqrt(2), 8 / math.sqrt(2))),
        ({"r": 2}, (4, 4)),  # peft's own default of lora_alpha is 8
    ],
)
def test_peft_s_patterns_fit_the_end_of_a_name_as_regular_expressions(tmp_path, settings, scales):
    layers = {Q: pair(Q), V: pair(V, seed=1)}
    folder = peft(tmp_path / "p", layers, **settings)
    want = {name: s * (b @ a) for s, (name, (a, b)) in zip(scales, layers.items(), strict=True)}
    same_change(change(folder), want)
    same_change(change(folder / "adapter_model.safetensors"), want)  # the settings beside the file count, too


def test_ranks_differ_per_layer_and_must_be_those_that_the_settings_say(tmp_path):
    layers = {Q: pair(Q, 3), V: pair(V, 2, seed=1)}
    settings = {"r": 2, "lora_alpha": 6, "rank_pattern": {"q_proj": 3}}
    same_change(
        change(peft(tmp_path / "p", layers, **settings)),
        {Q: 2 * layers[Q][1] @ layers[Q][0], V: 3 * layers[V][1] @ layers[V][0]},
    )
    with pytest.raises(UserError, match="settings say rank 2 of double_blocks.0.img_attn.q_proj, .* rank 3"):
        change(peft(tmp_path / "wrong", layers, r=2, lora_alpha=6))


def names(kind, layer, a, b):
    """The tensors of a pair as a tool names them, and the scale that it has there."""
    flat = layer.replace(".", "_")
    return {
        "kohya": (
            {
                f"lora_unet_{flat}.lora_down.weight": a,
                f"lora_unet_{flat}.lora_up.weight": b,
                f"lora_unet_{flat}.alpha": np.array(1, "f"),
            },
            0.5,
        ),
        "lycoris": (
            {
                f"lycoris_{flat}.lora_down.weight": a,
                f"lycoris_{flat}.lora_up.weight": b,
                f"lycoris_{flat}.alpha": np.array([4], np.float16),
            },
            2,
        ),
        "comfyui": ({f"diffusion_model.{layer}.lora_A.weight": a, f"diffusion_model.{layer}.lora_B.weight": b}, 1),
        "comfyui, nested": (
            {
                f"model.diffusion_model.{layer}.lora_down.weight": a,
                f"model.diffusion_model.{layer}.lora_up.weight": b,
                f"model.diffusion_model.{layer}.alpha": np.array(6, "f"),
            },
            3,
        ),
        "ai-toolkit": ({f"transformer.{layer}.lora_A.weight": a, f"transformer.{layer}.lora_B.weight": b}, 1),
        "a named adapter": ({f"{layer}.lora_A.default.weight": a, f"{layer}.lora_B.default.weight": b}, 1),
        "compiled": (
            {
                f"base_model.model.module._orig_mod.{layer}.lora_A.weight": a,
                f"base_model.model.module._orig_mod.{layer}.lora_B.weight": b,
            },
            1,
        ),
        "old diffusers": (
            {
                f"transformer.{layer}.lora.down.weight": a,
                f"transformer.{layer}.lora.up.weight": b,
                f"transformer.{layer}.alpha": np.array(-2, "f"),
            },
            -1,
        ),
    }[kind]


@pytest.mark.parametrize("layer", [Q, MLP])
@pytest.mark.parametrize(
    "kind",
    ["kohya", "lycoris", "comfyui", "comfyui, nested", "ai-toolkit", "a named adapter", "compiled", "old diffusers"],
)
def test_names_of_every_tool_are_of_the_same_layer(tmp_path, kind, layer):
    a, b = pair(layer)
    tensors, scale = names(kind, layer, a, b)
    save_file(tensors, tmp_path / "a.safetensors")
    assert adapters.is_adapter(tmp_path / "a.safetensors")
    same_change(change(tmp_path / "a.safetensors"), {layer: scale * (b @ a)})


def header_file(path, header, prefix="transformer.", layers=(Q,), alpha=None):
    tensors = {}
    for i, layer in enumerate(layers):
        a, b = pair(layer, seed=i)
        tensors |= {f"{prefix}{layer}.lora_A.weight": a, f"{prefix}{layer}.lora_B.weight": b}
        if alpha and alpha.get(layer):
            tensors[f"{prefix}{layer}.alpha"] = np.array(alpha[layer], "f")
    save_file(tensors, path, header)
    return path


def diffusers_header(**said):
    return {"format": "pt", "lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in said.items()})}


@pytest.mark.parametrize(
    "header, scale",
    [
        (diffusers_header(r=2, lora_alpha=8), 4),
        (diffusers_header(r=2, lora_alpha=8, alpha_pattern={"q_proj": 2}), 1),
        (diffusers_header(r=2, lora_alpha=8, use_rslora=True), 8 / math.sqrt(2)),
        ({"ss_network_alpha": "1.0", "ss_network_dim": "2"}, 0.5),
        ({"ss_network_alpha": "4"}, 2),
        (
            {
                "format": "pt",
                "software": "{}",
                "ss_scale_weight_norms": "None",
                "ss_alpha_mask": "False",
                "ss_network_args": '{"a": 1}',
            },
            1,
        ),
    ],
)
def test_a_scale_in_the_header_counts(tmp_path, header, scale):
    a, b = pair(Q)
    same_change(change(header_file(tmp_path / "a.safetensors", header)), {Q: scale * (b @ a)})


@pytest.mark.parametrize(
    "header, alpha, says",
    [
        ({"ss_network_alpha": "Dynamic", "ss_network_dim": "Dynamic"}, {}, "ss_network_alpha is 'Dynamic'"),
        ({"ss_network_alpha": "4", "ss_network_dim": "16"}, {}, "ss_network_dim is '16', .* has rank 2"),
        ({"ss_network_args": '{"rs_lora": "True"}'}, {}, "ss_network_args"),
        ({"lora_alpha": "16"}, {}, "lora_alpha = '16' in its header"),
        ({"scale": "2"}, {}, "scale = '2' in its header"),
        ({"lora_adapter_metadata": "{"}, {}, "lora_adapter_metadata in its header that cannot be read"),
        ({"lora_adapter_metadata": '{"unet.r": 2}'}, {}, "without r and lora_alpha of `transformer`"),
        (diffusers_header(r=4, lora_alpha=8), {}, "settings say rank 4"),
        (diffusers_header(r=2, lora_alpha="x"), {}, "lora_alpha of .* is 'x'"),
        (diffusers_header(r=2, lora_alpha=8, alpha_pattern={"(": 2}), {}, "alpha_pattern of its settings cannot be"),
        (diffusers_header(r=2, lora_alpha=8, alpha_pattern={ENDLESS: 2}), {}, "cannot be read .*timed out"),
        (diffusers_header(r=2, lora_alpha=8, use_dora=True), {}, "is DoRA by its settings and has no magnitudes"),
        (diffusers_header(r=2, lora_alpha=8, init_lora_weights="pissa_niter_4"), {}, "initialised by pissa_niter_4"),
        (diffusers_header(r=2, lora_alpha=8), {Q: 2.0, V: 2.0}, "scale 1 of .* in a tensor and 4 in its settings"),
        ({}, {Q: 2.0}, "alpha of some layers and none of double_blocks.0.txt_attn.v_proj"),
        ({}, {Q: float("nan"), V: 2.0}, "alpha of double_blocks.0.img_attn.q_proj is 'nan'"),
    ],
)
def test_a_scale_that_is_not_understood_is_refused_in_one_line(tmp_path, header, alpha, says):
    with pytest.raises(UserError, match=says) as refused:
        change(header_file(tmp_path / "a.safetensors", header or None, layers=(Q, V), alpha=alpha))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500
    fine = header_file(tmp_path / "b.safetensors", {"format": "pt"}, layers=(Q, V), alpha={Q: 2.0, V: 2.0})
    assert change(fine).keys() == {Q, V}  # the same pairs with a scale that is


@pytest.mark.parametrize(
    "more, says",
    [
        (
            {f"transformer.{Q}.lora_magnitude_vector": (2, 32)},
            "DoRA whose magnitudes of .* one for each of the 64 rows",
        ),
        ({f"transformer.{Q}.dora_scale": (1, 64)}, "DoRA whose magnitudes"),  # of columns, as LyCORIS had them first
        ({f"transformer.{Q}.hada_w1_a": (64, 2)}, "LoHa"),
        ({f"transformer.{Q}.lokr_w1": (8, 8)}, "LoKr"),
        ({f"transformer.{Q}.lora_B.bias": (64,)}, "LoRA with biases"),
        ({f"transformer.{Q}.diff_b": (64,)}, "whole differences"),
        ({f"transformer.{Q}.scale": ()}, "belongs to no LoRA"),
        ({"transformer.img_in.alpha": ()}, "img_in has no pair"),
        ({"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (2, 8)}, "adapts a text encoder"),
        ({f"diffusion_model.{Q}.lora_A.weight": (2, 64)}, "two adapters of"),
        ({f"transformer.blocks.{i}.attn.lora_A.weight": (2, 8) for i in range(9)}, "blocks.2.attn; and 6 more"),
    ],
)
def test_what_is_more_than_pairs_is_refused_by_name(tmp_path, more, says):
    path = header_file(tmp_path / "a.safetensors", None)
    assert change(path).keys() == {Q}
    save_file(load_file(path) | {name: np.ones(shape, "f") for name, shape in more.items()}, path)
    assert adapters.is_adapter(path)
    with pytest.raises(UserError, match=says) as refused:
        change(path)
    assert len(str(refused.value)) < 500


def test_names_of_diffusers_flux_are_known_by_themselves_and_fused_ones_are_pointed_at(tmp_path):
    layer = "transformer_blocks.0.attn.to_k"
    a, b = pair(Q)
    for i, root in enumerate((f"transformer.{layer}", f"lora_unet_{layer.replace('.', '_')}")):
        save_file({f"{root}.lora_A.weight": a, f"{root}.lora_B.weight": b}, tmp_path / f"{i}.safetensors")
        got = change(tmp_path / f"{i}.safetensors", weights.FLUX)
        same_change({QKV: got[QKV][64:128]}, {QKV: b @ a})
        assert got.keys() == {QKV} and not got[QKV][:64].any() and not got[QKV][128:].any()
    a, b = pair(QKV)
    save_file({f"{QKV}.lora_A.weight": a, f"{QKV}.lora_B.weight": b}, tmp_path / "f.safetensors")
    with pytest.raises(UserError, match="img_attn.qkv, which .* names are those of layout flux"):
        change(tmp_path / "f.safetensors")
    same_change(change(tmp_path / "f.safetensors", weights.FLUX), {QKV: b @ a})


@pytest.mark.parametrize("layout", [weights.OPEN_SORA_V2, weights.FLUX], ids=["open_sora_v2", "flux"])
@pytest.mark.parametrize(
    "form, out", [("diffusers", "a.safetensors"), ("diffusers", "d"), ("comfyui", "c.safetensors"), ("peft", "p")]
)
def test_every_form_reads_back_bit_for_bit_and_means_the_same_to_who_knows_nothing_of_us(tmp_path, layout, form, out):
    given = made(EVERY)
    (path, *_) = lora_file.write(tmp_path / out, tiny.CONFIG, given, layout, form)
    found = lora_file.read(tmp_path / out, tiny.CONFIG, layout)
    assert found.cfg == EVERY and tiny.same(found.tree, given.tree)
    want = change(tmp_path / out, layout)
    header = {k: v for k, v in safetensors_file.metadata(path).items() if k != lora_file.OWN}
    save_file(load_file(path), path, header)
    if form == "diffusers":
        assert (layout == weights.FLUX) == any(".attn.to_q." in name for name in load_file(path))
    got = change(tmp_path / out, layout)
    assert got.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_allclose(got[name], x, atol=2e-5)
    if header.pop("lora_adapter_metadata", None):  # control: without its settings it means something else
        save_file(load_file(path), path, header)
        assert np.abs(change(tmp_path / out, layout)[name] - x).max() > 0.1


@pytest.mark.parametrize("form, out", [("diffusers", "a.safetensors"), ("comfyui", "c.safetensors"), ("peft", "p")])
def test_a_scale_that_somebody_changed_in_a_file_of_ours_counts(tmp_path, form, out):
    (path, *_) = lora_file.write(tmp_path / out, tiny.CONFIG, made(EVERY), weights.OPEN_SORA_V2, form)
    before = change(tmp_path / out)
    header, tensors = safetensors_file.metadata(path), load_file(path)
    tensors = {n: np.asarray(2 * x) if n.endswith(".alpha") else x for n, x in tensors.items()}
    if form == "diffusers":
        said = json.loads(header["lora_adapter_metadata"])
        double = {f"transformer.{k}": v for k, v in doubled(said, "transformer.").items()}
        header["lora_adapter_metadata"] = json.dumps(said | double)
    save_file(tensors, path, header)
    if form == "peft":
        settings = json.loads((tmp_path / out / "adapter_config.json").read_text())
        (tmp_path / out / "adapter_config.json").write_text(json.dumps(settings | doubled(settings)))
    same_change(change(tmp_path / out), {name: 2 * x for name, x in before.items()})


def doubled(settings, prefix=""):
    patterns = settings[f"{prefix}alpha_pattern"]
    return {"lora_alpha": 2 * settings[f"{prefix}lora_alpha"], "alpha_pattern": {k: 2 * v for k, v in patterns.items()}}


def test_a_form_that_does_not_go_with_the_place_is_refused(tmp_path):
    for form, out in (("peft", "a.safetensors"), ("comfyui", "folder"), ("kohya", "a.safetensors")):
        with pytest.raises(UserError, match="form") as refused:
            lora_file.form_of(tmp_path / out, form)
        assert refused.value.status == 2
    assert lora_file.form_of(tmp_path / "folder", None) == "peft"
