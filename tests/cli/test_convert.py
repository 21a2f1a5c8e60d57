"""`osjax convert` as a user runs it: there and back, other models as a start, memory, and what it says to mistakes."""

import resource

import chex
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file, save_file

from osjax import models, weights
from osjax.__main__ import main
from tests import golden
from tests.forked import Forked
from tests.models.test_mmdit import config, tensors
from tests.weights.torch_files import write_zip

CONFIG = """
from ml_collections import ConfigDict

def get_config():
    cfg = ConfigDict()
    video = dict(vec_in_dim=48, context_in_dim=80, hidden_size=256, num_heads=2, depth=2, depth_single_blocks=3)
    cfg.video = {{"family": "mmdit", "config": {video}, "layout": "open_sora_v2"}}
    cfg.flux = {{"family": "mmdit", "config": {flux}, "layout": "flux"}}
    cfg.ae = {{"family": "dcae", "config": {ae}}}
    return cfg
"""


def fields(name):
    read = golden.read_json(f"manifest_{name}")["config"]
    return {k: v for k, v in read.items() if k not in ("fused_qkv", "use_liger_rope")}


@pytest.fixture(scope="module")
def models_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "my_models.py"
    values = {"video": fields("mmdit_a"), "flux": fields("mmdit_b"), "ae": fields("dcae_tiny")}
    path.write_text(CONFIG.format(**{k: repr(v) for k, v in values.items()}))
    return path


def convert(models_file, *argv):
    return main(["convert", f"--config={models_file}", *map(str, argv)])


def restored(folder):
    """The parameters of checkpoint 0 as Orbax itself reads them."""
    return ocp.PyTreeCheckpointer().restore(folder / "0" / "params")


def test_a_file_becomes_a_checkpoint_and_the_same_file_again_byte_for_byte(tmp_path, models_file, capsys):
    given = tensors("mmdit_a")
    save_file(given, tmp_path / "in.safetensors", {"format": "pt"})
    assert convert(models_file, tmp_path / "in.safetensors", tmp_path / "ckpt", "--model=video") == 0
    said = capsys.readouterr().out
    assert f"{sum(x.size for x in given.values()):,} parameters as an osjax checkpoint" in said
    params = restored(tmp_path / "ckpt")
    want = weights.from_torch(config("mmdit_a"), given)
    chex.assert_trees_all_equal(params, want)
    assert convert(models_file, tmp_path / "ckpt", tmp_path / "out.safetensors", "--model=video") == 0
    assert (tmp_path / "out.safetensors").read_bytes() == (tmp_path / "in.safetensors").read_bytes()


def test_a_checkpoint_is_sealed_and_one_that_is_not_or_no_more_is_told(tmp_path, models_file, capsys, caplog):
    save_file(tensors("mmdit_a"), tmp_path / "in.safetensors", {"format": "pt"})
    assert convert(models_file, tmp_path / "in.safetensors", tmp_path / "ckpt", "--model=video") == 0
    assert convert(models_file, tmp_path / "ckpt", tmp_path / "first.safetensors", "--model=video") == 0
    assert "no seal" not in caplog.text
    largest = max((p for p in (tmp_path / "ckpt").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert convert(models_file, tmp_path / "ckpt", tmp_path / "second.safetensors", "--model=video") == 1
    assert "has changed" in capsys.readouterr().err and not (tmp_path / "second.safetensors").exists()
    (tmp_path / "ckpt.seals" / "0.json").unlink()
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert convert(models_file, tmp_path / "ckpt", tmp_path / "second.safetensors", "--model=video") == 0
    assert "no seal beside it: it is not verified" in caplog.text


@pytest.mark.parametrize("name", ["flux", "ae"])
def test_torch_checkpoints_of_other_families_and_layouts_go_the_same_way(tmp_path, models_file, name):
    manifest = "mmdit_b" if name == "flux" else "dcae_tiny"
    shapes = golden.read_json(f"manifest_{manifest}")["state_dict"]
    given = {n: golden.generate(n, tuple(entry["shape"])) for n, entry in shapes.items()}
    write_zip(tmp_path / "in.pt", {"state_dict": given})
    assert convert(models_file, tmp_path / "in.pt", tmp_path / "ckpt", f"--model={name}") == 0
    assert convert(models_file, tmp_path / "ckpt", tmp_path / "out.safetensors", f"--model={name}") == 0
    back = load_file(tmp_path / "out.safetensors")
    assert back.keys() == given.keys() and all(np.array_equal(back[n], given[n]) for n in given)


def test_dtype_and_parts_of_a_folder_are_the_user_s_choice(tmp_path, models_file):
    given = tensors("mmdit_a")
    save_file(given, tmp_path / "in.safetensors")
    argv = [tmp_path / "in.safetensors", tmp_path / "parts", "--model=video", "--to=safetensors", "--dtype=bf16"]
    assert convert(models_file, *argv, "--shard-gb=0.002") == 0
    parts = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(parts) > 2 and all(p.stat().st_size < 2.1e6 for p in parts)
    assert (
        convert(models_file, tmp_path / "parts", tmp_path / "one.safetensors", "--model=video", "--to=safetensors") == 0
    )
    got = weights_of(tmp_path / "one.safetensors")
    assert got.keys() == given.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(got[name], value.astype(ml_dtypes.bfloat16))
    assert convert(models_file, tmp_path / "parts", tmp_path / "ckpt", "--model=video") == 0
    kernel = restored(tmp_path / "ckpt")["img_in"]["kernel"]
    assert kernel.dtype == ml_dtypes.bfloat16


def weights_of(path):
    from osjax.weights.io import open_tensors

    return {name: np.asarray(tensor) for name, tensor in open_tensors(path).items()}


def test_flux_starts_the_video_model_from_the_command_line(tmp_path, models_file):
    wide = models_file.with_name("wide.py")
    same = {**fields("mmdit_b"), "guidance_embed": False, "cond_embed": True}
    values = {"video": same, "flux": fields("mmdit_b"), "ae": fields("dcae_tiny")}
    wide.write_text(CONFIG.format(**{k: repr(v) for k, v in values.items()}))
    save_file(tensors("mmdit_b"), tmp_path / "flux.safetensors")
    argv = [tmp_path / "flux.safetensors", tmp_path / "start.safetensors", "--model=video", "--start-from=flux"]
    assert convert(wide, *argv, "--to=safetensors") == 0
    got = load_file(tmp_path / "start.safetensors")
    assert not got["cond_in.weight"].any() and "guidance_in.in_layer.weight" not in got
    fused = tensors("mmdit_b")["double_blocks.0.img_attn.qkv.weight"]
    np.testing.assert_array_equal(got["double_blocks.0.img_attn.v_proj.weight"], fused[512:])
    assert not np.array_equal(got["double_blocks.0.img_attn.q_proj.weight"], fused[:256])  # rotary pairs have moved


MISTAKES = [
    (["nothing.safetensors", "out", "--model=video"], 2, "nothing.safetensors does not exist"),
    (["in.safetensors", "out"], 2, "--model"),
    (["in.safetensors", "out", "--model=vidoe"], 2, "did you mean video?"),
    (["in.safetensors", "out", "--model=ae"], 1, "missing encoder"),
    (["in.safetensors", "out", "--model=video", "--dtype=fp4"], 2, "invalid choice"),
    (
        ["in.safetensors", "out", "--model=video", "--layout=flucks"],
        2,
        "--layout is 'flucks': use one of open_sora_v2, flux",
    ),
    (["in.safetensors", "out", "--model=ae", "--layout=flux"], 2, "has only one"),
    (["in.safetensors", "out", "--model=video", "--layout=flux"], 1, "missing double_blocks.0.img_attn.qkv.weight"),
    (["in.safetensors", "out.safetensors", "--model=video"], 2, "name a folder"),
    (["in.safetensors", "full", "--model=video"], 2, "full exists"),
    (["in.safetensors", "out", "--model=video", "--shard-gb=0"], 2, "more than 0"),
    (["in.safetensors", "out", "--model=video", "--form=peft"], 2, "--form is for adapters"),
    (["full", "out", "--model=video"], 1, "holds no .safetensors"),
    (["short.safetensors", "out", "--model=video"], 1, "cut off"),
    (["notes.txt", "out", "--model=video"], 1, "is no safetensors file"),
    (["ckpt", "out", "--model=flux"], 1, "does not fit the model"),
    (
        ["in.safetensors", "out", "--model=flux", "--start-from=video", "--config.flux.config.depth=3"],
        1,
        "cannot start",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, models_file):
    folder = tmp_path_factory.mktemp("mistakes")
    save_file(tensors("mmdit_a"), folder / "in.safetensors")
    content = (folder / "in.safetensors").read_bytes()
    (folder / "short.safetensors").write_bytes(content[:-100])
    (folder / "notes.txt").write_text("these are no weights")
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()
    assert convert(models_file, folder / "in.safetensors", folder / "ckpt", "--model=video") == 0
    return folder


@pytest.mark.parametrize("argv, status, says", MISTAKES, ids=[says for *_, says in MISTAKES])
def test_a_mistake_is_one_line_and_leaves_nothing_behind(folder, models_file, monkeypatch, capsys, argv, status, says):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert convert(models_file, *argv) == status
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("form, out", [("peft", "p"), ("diffusers", "d.safetensors"), ("comfyui", "c.safetensors")])
def test_adapters_of_another_tool_become_a_file_of_a_third(tmp_path, models_file, capsys, form, out):
    name, a, b = "lora_unet_double_blocks_0_img_attn_q_proj", np.ones((2, 256), "f"), np.ones((256, 2), "f")
    tensors = {f"{name}.lora_down.weight": a, f"{name}.lora_up.weight": b, f"{name}.alpha": np.array(3, "f")}
    save_file(tensors, tmp_path / "kohya.safetensors")
    argv = [tmp_path / "kohya.safetensors", tmp_path / out, "--model=video"]
    assert convert(models_file, *argv, f"--form={form}") == 0
    assert "adapters of rank 2, alpha 3" in capsys.readouterr().out
    again = [tmp_path / out, tmp_path / "again.safetensors", "--model=video"]
    assert convert(models_file, *again) == 0
    got = load_file(tmp_path / "again.safetensors")
    root = "diffusion_model.double_blocks.0.img_attn.q_proj"
    np.testing.assert_array_equal(got[f"{root}.lora_B.weight"] @ got[f"{root}.lora_A.weight"], b @ a)
    assert got[f"{root}.alpha"] == 3
    wrong = tmp_path / ("x.safetensors" if form == "peft" else "x")
    assert (
        convert(models_file, argv[0], wrong, "--model=video", "--form=peft" if form == "peft" else "--form=comfyui")
        == 2
    )
    save_file(tensors | {f"{name}.dora_scale": np.ones((256, 1), "f")}, tmp_path / "dora.safetensors")
    assert convert(models_file, tmp_path / "dora.safetensors", tmp_path / "y", "--model=video") == 1
    assert "is DoRA" in capsys.readouterr().err and not (tmp_path / "y").exists()


def test_files_under_a_prefix_and_of_gguf_are_told_in_one_line(tmp_path, models_file, capsys, caplog):
    given = tensors("mmdit_a")
    save_file({f"module._orig_mod.{n}": x for n, x in given.items()}, tmp_path / "w.safetensors")
    out = tmp_path / "out.safetensors"
    assert convert(models_file, tmp_path / "w.safetensors", out, "--model=video", "--to=safetensors") == 0
    assert "names are read without 'module.'" in caplog.text
    assert load_file(out).keys() == given.keys()
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(200))
    assert convert(models_file, tmp_path / "m.gguf", tmp_path / "o", "--model=video") == 1
    error = capsys.readouterr().err
    assert "is a GGUF file" in error and "fetch it again" not in error


def measured(argv):
    status = main(["convert", *argv])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return status


def peak(folder, *argv):
    """Peak memory of a conversion in a process of its own, in MB."""
    process = Forked(measured, [str(part) for part in argv], folder)
    assert process.wait(250) == 0, process.stderr
    return int(process.stdout.splitlines()[-1]) / 1024


@pytest.mark.long
def test_memory_of_a_conversion_does_not_grow_with_the_model(tmp_path):
    """Twice the blocks, 0.6 GB more of them, take no more; a few blocks would not yet fill what is under way."""
    source = CONFIG.replace("video = dict", "unused = dict")
    taken = {}
    for depth in (20, 40):
        wide = {**fields("mmdit_a"), "hidden_size": 1024, "num_heads": 8, "depth": 0, "depth_single_blocks": depth}
        models_file = tmp_path / f"models{depth}.py"
        values = {"video": wide, "flux": wide, "ae": fields("dcae_tiny")}
        models_file.write_text(source.format(**{k: repr(v) for k, v in values.items()}))
        path = tmp_path / f"{depth}.safetensors"
        size = write_holes(path, weights.torch_shapes(models.config("mmdit", **wide)))
        out = tmp_path / f"out{depth}"
        taken[depth] = peak(tmp_path / f"logs{depth}", path, out, "--model=video", f"--config={models_file}")
        back = peak(
            tmp_path / f"logs{depth}", out, tmp_path / f"back{depth}", "--model=video", f"--config={models_file}"
        )
        taken[depth] = max(taken[depth], back)
    assert size > 900e6
    assert taken[40] - taken[20] < 150, taken


def write_holes(path, shapes):
    """A bfloat16 safetensors file of zeros that takes no disk."""
    import json
    import struct

    header, place = {}, 0
    for name, shape in sorted(shapes.items()):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + place)
    return place
