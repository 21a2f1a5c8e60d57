"""Whole files as people have them: under a prefix, in diffusers' layout, sharded, quantised. Read, or named."""

import json
import logging

import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from osjax import models, weights
from osjax.errors import UserError
from osjax.weights import io, load
from osjax.weights.rules import whole
from tests import golden
from tests.training import tiny
from tests.weights.test_io import write_sharded
from tests.weights.torch_files import write_zip

NATIVE = weights.to_torch(tiny.CONFIG, tiny.host_params())
D, F = tiny.CONFIG.hidden_size, tiny.CONFIG.mlp_dim
FLUX = models.config("mmdit", **{**vars(tiny.CONFIG), "cond_embed": False, "guidance_embed": True})
FLUX_SHAPES = weights.torch_shapes(FLUX, layout=weights.FLUX)
FLUX_TENSORS = {name: golden.generate(name, shape) for name, shape in FLUX_SHAPES.items()}


def same_leaves(found, params):
    want = flatten_dict(params)
    assert found.shapes.keys() == want.keys()
    for path, shape in found.shapes.items():
        np.testing.assert_array_equal(found.read(path, whole(shape)), want[path])


def under(prefix, tensors=NATIVE):
    return {prefix + name: x for name, x in tensors.items()}


def inside(name, wrapper="_orig_mod"):
    """The name with a wrapper around each block, as torch.compile of blocks writes it."""
    first, *rest = name.split(".")
    return ".".join([first, rest[0], wrapper, *rest[1:]]) if first.endswith("_blocks") else name


@pytest.mark.parametrize(
    "prefix",
    [
        "model.diffusion_model.",
        "module.",
        "_orig_mod.",
        "transformer.",
        "module._orig_mod.",
        "diffusion_model.",
        "dit.",
    ],
)
def test_a_prefix_before_all_names_is_taken_off_and_said_in_one_line(tmp_path, caplog, prefix):
    save_file(under(prefix), tmp_path / "w.safetensors")
    write_zip(tmp_path / "w.pt", under(prefix))
    for name in ("w.safetensors", "w.pt"):
        caplog.clear()
        same_leaves(load.open_leaves(tiny.CONFIG, tmp_path / name), tiny.host_params())
        said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(said) == 1 and name in said[0] and prefix.split(".")[0] in said[0]
    caplog.clear()
    save_file(NATIVE, tmp_path / "plain.safetensors")
    same_leaves(load.open_leaves(tiny.CONFIG, tmp_path / "plain.safetensors"), tiny.host_params())
    assert not caplog.records


@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_within_names_are_taken_off(tmp_path, caplog, prefix):
    save_file({prefix + inside(name): x for name, x in NATIVE.items()}, tmp_path / "w.safetensors")
    same_leaves(load.open_leaves(tiny.CONFIG, tmp_path / "w.safetensors"), tiny.host_params())
    assert "_orig_mod" in caplog.text


def test_a_model_is_found_in_a_bundle_of_several(tmp_path):
    bundle = under("model.diffusion_model.") | {"vae.decoder.conv_in.weight": np.ones(3, "f")}
    save_file(bundle, tmp_path / "all.safetensors")
    same_leaves(load.open_leaves(tiny.CONFIG, tmp_path / "all.safetensors"), tiny.host_params())
    save_file(bundle | {"surplus": np.ones(3, "f")}, tmp_path / "more.safetensors")
    with pytest.raises(UserError, match="do not fit the model"):
        load.open_leaves(tiny.CONFIG, tmp_path / "more.safetensors")


def test_names_of_which_only_some_have_a_prefix_are_refused_in_a_bounded_line(tmp_path):
    half = {("module." if i % 2 else "") + name: x for i, (name, x) in enumerate(NATIVE.items())}
    save_file(half, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="; and [0-9]+ more") as refused:
        load.open_leaves(tiny.CONFIG, tmp_path / "w.safetensors")
    assert len(str(refused.value)) < 2500
    with pytest.raises(UserError, match="names begin with 'module.'"):  # the strict door says it, too
        weights.from_torch(tiny.CONFIG, under("module."))
    save_file({"x" * 5000: np.ones(1, "f")}, tmp_path / "long.safetensors")
    with pytest.raises(UserError) as refused:
        load.open_leaves(tiny.CONFIG, tmp_path / "long.safetensors")
    assert len(str(refused.value)) < 2500


def of_diffusers(t):
    """The tensors of FLUX as diffusers' own conversion makes them, written here by hand."""
    out = {}

    def move(ours, theirs, kinds=("weight", "bias")):
        out.update({f"{theirs}.{k}": t[f"{ours}.{k}"] for k in kinds})

    def norms(ours, q, k):
        out.update({f"{q}.weight": t[f"{ours}.query_norm.scale"], f"{k}.weight": t[f"{ours}.key_norm.scale"]})

    for ours, theirs in (("time_in", "timestep"), ("vector_in", "text"), ("guidance_in", "guidance")):
        move(f"{ours}.in_layer", f"time_text_embed.{theirs}_embedder.linear_1")
        move(f"{ours}.out_layer", f"time_text_embed.{theirs}_embedder.linear_2")
    move("img_in", "x_embedder")
    move("txt_in", "context_embedder")
    move("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):
        shift, scale = np.split(t[f"final_layer.adaLN_modulation.1.{kind}"], 2)
        out[f"norm_out.linear.{kind}"] = np.concatenate([scale, shift])
    for i in range(FLUX.depth):
        a, b = f"double_blocks.{i}", f"transformer_blocks.{i}"
        for kind in ("weight", "bias"):
            for side, names in (("img", ("to_q", "to_k", "to_v")), ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"))):
                thirds = np.split(t[f"{a}.{side}_attn.qkv.{kind}"], 3)
                out.update({f"{b}.attn.{n}.{kind}": x for n, x in zip(names, thirds, strict=True)})
        norms(f"{a}.img_attn.norm", f"{b}.attn.norm_q", f"{b}.attn.norm_k")
        norms(f"{a}.txt_attn.norm", f"{b}.attn.norm_added_q", f"{b}.attn.norm_added_k")
        for ours, theirs in (
            ("img_mod.lin", "norm1.linear"),
            ("txt_mod.lin", "norm1_context.linear"),
            ("img_attn.proj", "attn.to_out.0"),
            ("txt_attn.proj", "attn.to_add_out"),
            ("img_mlp.0", "ff.net.0.proj"),
            ("img_mlp.2", "ff.net.2"),
            ("txt_mlp.0", "ff_context.net.0.proj"),
            ("txt_mlp.2", "ff_context.net.2"),
        ):
            move(f"{a}.{ours}", f"{b}.{theirs}")
    for i in range(FLUX.depth_single_blocks):
        a, b = f"single_blocks.{i}", f"single_transformer_blocks.{i}"
        for kind in ("weight", "bias"):
            four = np.split(t[f"{a}.linear1.{kind}"], [D, 2 * D, 3 * D])
            names = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
            out.update({f"{b}.{n}.{kind}": x for n, x in zip(names, four, strict=True)})
        norms(f"{a}.norm", f"{b}.attn.norm_q", f"{b}.attn.norm_k")
        move(f"{a}.modulation.lin", f"{b}.norm.linear")
        move(f"{a}.linear2", f"{b}.proj_out")
    return out


def test_diffusers_flux_and_the_native_file_are_the_same_model(tmp_path):
    theirs = of_diffusers(FLUX_TENSORS)
    save_file(FLUX_TENSORS, tmp_path / "native.safetensors")
    save_file(theirs, tmp_path / "diffusers.safetensors")
    native = load.open_leaves(FLUX, tmp_path / "native.safetensors", layout=weights.FLUX)
    for layout in (weights.FLUX_DIFFUSERS, weights.FLUX, weights.OPEN_SORA_V2):  # the names say it anyway
        same_leaves(load.open_leaves(FLUX, tmp_path / "diffusers.safetensors", layout=layout), native.tree())
    back = weights.to_torch(FLUX, native.tree(), layout=weights.FLUX_DIFFUSERS)
    assert back.keys() == theirs.keys() == weights.torch_shapes(FLUX, layout=weights.FLUX_DIFFUSERS).keys()
    for name, x in theirs.items():
        np.testing.assert_array_equal(back[name], x)
    swapped = "norm_out.linear.bias"  # control: shift and scale in the native order are another model
    wrong = weights.from_torch(FLUX, theirs | {swapped: np.roll(theirs[swapped], D)}, layout=weights.FLUX_DIFFUSERS)
    assert not np.array_equal(
        wrong["final_layer"]["modulation"]["bias"], native.tree()["final_layer"]["modulation"]["bias"]
    )


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_a_sharded_folder_of_diffusers_is_read_and_its_pipeline_pointed_into(tmp_path, variant):
    theirs = of_diffusers(FLUX_TENSORS)
    names = sorted(theirs)
    folder = write_sharded(
        tmp_path / "transformer", a={n: theirs[n] for n in names[::2]}, b={n: theirs[n] for n in names[1::2]}
    )
    index = folder / "model.safetensors.index.json"
    index.rename(folder / f"diffusion_pytorch_model.safetensors.index{variant}.json")
    want = weights.from_torch(FLUX, FLUX_TENSORS, layout=weights.FLUX)
    same_leaves(load.open_leaves(FLUX, folder, layout=weights.FLUX), want)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UserError, match=r"pipeline of diffusers .*\(transformer\)"):
        load.open_leaves(FLUX, tmp_path, layout=weights.FLUX)


@pytest.mark.parametrize("family, manifest", [("t5", "t5_tiny"), ("clip_text", "clip_tiny")])
def test_a_sharded_folder_of_hugging_face_is_read_with_what_else_it_holds(tmp_path, family, manifest):
    from osjax.parts import model_folder

    fields = golden.read_json(f"manifest_{manifest}")["config"]
    kind = "t5" if family == "t5" else "clip_text_model"
    cfg = models.config(
        family, **{k: v for k, v in fields.items() if k in models.config_class(family).__dataclass_fields__}
    )
    given = {n: golden.generate(n, s) for n, s in weights.torch_shapes(cfg).items() if "embed_tokens" not in n}
    more = {"t5": "decoder.block.0.layer.0.SelfAttention.q.weight", "clip_text": "vision_model.post_layernorm.weight"}
    names = sorted(given)
    folder = write_sharded(
        tmp_path / "m",
        a={n: given[n] for n in names[::2]},
        b={n: given[n] for n in names[1::2]} | {more[family]: np.ones((2, 2), "f")},
    )
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **fields}))
    found = load.open_leaves(cfg, model_folder.weight_file(folder))
    same_leaves(found, weights.from_torch(cfg, given))
    (folder / "b.safetensors").unlink()
    with pytest.raises(UserError, match="b.safetensors is missing"):
        load.open_leaves(cfg, model_folder.weight_file(folder))


LAYER = "double_blocks.0.img_attn.q_proj"
E4M3 = ml_dtypes.float8_e4m3fn


def stored(dtype=np.uint8, **more):
    """The tiny model with one layer stored as another tool does, and what that tool puts beside it."""
    beside = {k.replace("__", "."): np.ones(2, v) for k, v in more.items()}
    return NATIVE | {f"{LAYER}.weight": np.ones((D, D), dtype)} | {f"{LAYER}.{k}": v for k, v in beside.items()}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize(
    "tensors, says",
    [
        (stored(E4M3, scale_weight=np.float32), "scaled fp8 weights .ComfyUI, kijai."),
        (NATIVE | {"scaled_fp8": np.ones(0, E4M3)}, "scaled fp8 weights"),
        (stored(E4M3, weight_scale=np.float32), "scaled fp8 or int8"),
        (stored(np.int8, SCB=np.float32, weight_format=np.uint8), "int8 weights .bitsandbytes."),
        (NATIVE | {f"{LAYER}.weight.quant_state.bitsandbytes__nf4": np.ones(9, np.uint8)}, "NF4 weights"),
        (NATIVE | {f"{LAYER}.weight.absmax": np.ones(9, "f")}, "4-bit weights"),
        (stored(np.int8), "weights stored as int8, a quantised file of unknown kind"),
        ({f"{LAYER}.qweight": np.ones(3, np.int32)}, "GPTQ or AWQ"),
        ({f"{LAYER}.lora_A.weight": np.ones((2, D), "f")}, "holds adapters .LoRA., no model"),
    ],
)
def test_quantised_files_and_adapters_are_named_as_what_they_are(tmp_path, prefix, tensors, says):
    save_file(under(prefix, tensors), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=says) as refused:
        load.open_leaves(tiny.CONFIG, tmp_path / "w.safetensors")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_fp8_without_scales_is_read_as_the_values_that_it_holds(tmp_path):
    given = {name: x.astype(E4M3) for name, x in NATIVE.items()}
    save_file(given, tmp_path / "w.safetensors")
    found = load.open_leaves(tiny.CONFIG, tmp_path / "w.safetensors").cast(np.float32)
    same_leaves(found, weights.from_torch(tiny.CONFIG, {n: x.astype("f") for n, x in given.items()}))


@pytest.mark.parametrize("start, says", [(b"GGUF", "GGUF file"), (b"ggml", "GGML"), (b"\x89HDF\r\n\x1a\n", "HDF5")])
def test_files_of_other_formats_are_named_whatever_they_are_called(tmp_path, start, says):
    for name in ("m.gguf", "m.safetensors", "m.bin"):
        (tmp_path / name).write_bytes(start + bytes(200))
        with pytest.raises(UserError, match=f"{says}.*fetch the model as .safetensors") as refused:
            io.open_tensors(tmp_path / name)
        assert "fetch it again" not in str(refused.value)
        (tmp_path / name).unlink()
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(200))
    with pytest.raises(UserError, match="GGUF"):
        io.open_tensors(tmp_path)
    save_file(NATIVE, tmp_path / "m.safetensors")  # control: weights beside it are read
    assert io.open_tensors(tmp_path).keys() == load_file(tmp_path / "m.safetensors").keys()


@pytest.mark.parametrize(
    "names, says",
    [
        (["double_blocks.0.img_attn.qkv.weight"], "FLUX in its own layout: layout flux reads it"),
        (["double_blocks.0.img_attn_qkv.weight"], "HunyuanVideo's transformer"),
        (["single_transformer_blocks.0.attn.to_q.weight", "context_embedder.token_refiner.proj_in.weight"], "Hunyuan"),
        (["encoder.down_blocks.0.resnets.0.conv1.weight"], "diffusers' AutoencoderKL: give the original's file"),
        (["encoder.down_blocks.0.0.conv1.weight"], "diffusers' AutoencoderDC"),
        (["blocks.0.self_attn.q.weight"], "Wan"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "Stable Diffusion"),
        (["nobody.knows.this"], None),
    ],
)
def test_a_misfit_says_which_known_layout_its_names_look_like(tmp_path, names, says):
    save_file({name: np.ones((2, 2), "f") for name in names}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=says or "do not fit the model") as refused:
        load.open_leaves(tiny.CONFIG, tmp_path / "w.safetensors")
    assert ("look like" in str(refused.value)) == bool(says)
    assert len(str(refused.value)) < 1500
