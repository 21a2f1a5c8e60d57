"""DINOv2 against plain numpy with the published names, and positions against their definition."""

import chex
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf

from osjax import models, weights
from osjax.errors import UserError
from osjax.models.dinov2 import MEAN, SIZES, STD, bicubic
from osjax.weights import load
from osjax.weights.dinov2 import belongs, from_huggingface
from tests import golden

TINY = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 8, "patch_size": 2}
VARIANTS = {
    "plain": {},
    "registers": {"num_register_tokens": 4},
    "giant": {"ffn_layer": "swiglufused"},
}


def generated(cfg) -> dict[str, np.ndarray]:
    shapes = weights.torch_shapes(cfg)
    return {name: golden.generate(name, shape) + (0.5 if "gamma" in name else 0) for name, shape in shapes.items()}


def layer_norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def oracle(cfg, w, image_HWC, positions):
    """Class token and patches (N, D) of one image in float64."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    p, D, h = cfg.patch_size, cfg.embed_dim, cfg.num_heads
    pixels = ((image_HWC + 1) / 2 - np.array(MEAN)) / np.array(STD)
    tokens = []
    for top in range(0, pixels.shape[0], p):
        for left in range(0, pixels.shape[1], p):
            cell = pixels[top : top + p, left : left + p]
            tokens.append(np.einsum("hwc,ochw->o", cell, w["patch_embed.proj.weight"]) + w["patch_embed.proj.bias"])
    cls = w["cls_token"][0] + w["pos_embed"][0, :1]
    x = np.concatenate([cls, *([w["register_tokens"][0]] if cfg.num_register_tokens else []), tokens + positions])
    for i in range(cfg.depth):
        root = f"blocks.{i}"
        q, k, v = np.split(linear(layer_norm(x, w, f"{root}.norm1"), w, f"{root}.attn.qkv"), 3, axis=-1)
        mixed = np.zeros_like(x)
        for head in range(h):
            part = slice(head * D // h, (head + 1) * D // h)
            scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(D / h))
            mixed[:, part] = scores / scores.sum(-1, keepdims=True) @ v[:, part]
        x = x + w[f"{root}.ls1.gamma"] * linear(mixed, w, f"{root}.attn.proj")
        y = layer_norm(x, w, f"{root}.norm2")
        if cfg.ffn_layer == "mlp":
            y = linear(y, w, f"{root}.mlp.fc1")
            y = linear(y * (1 + erf(y / np.sqrt(2))) / 2, w, f"{root}.mlp.fc2")
        else:
            gate, value = np.split(linear(y, w, f"{root}.mlp.w12"), 2, axis=-1)
            y = linear(gate / (1 + np.exp(-gate)) * value, w, f"{root}.mlp.w3")
        x = x + w[f"{root}.ls2.gamma"] * y
    x = layer_norm(x, w, "norm")
    return x[0], x[1 + cfg.num_register_tokens :]


def difference(got, want) -> float:
    return np.abs(got - want).max() / np.abs(want).max()


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_are_those_of_the_formulas_on_generated_weights(variant):
    cfg = models.config("dinov2", **TINY, **VARIANTS[variant])
    w = generated(cfg)
    video = np.random.RandomState(0).uniform(-1, 1, (1, 2, 8, 8, 3)).astype(np.float32)
    params = weights.from_torch(cfg, w)
    cls, patches = models.build(cfg).apply({"params": params}, video, method="whole")
    assert patches.shape == (1, 2, 4, 4, 16)
    for t in range(2):
        want_cls, want = oracle(cfg, w, video[0, t].astype(np.float64), w["pos_embed"][0, 1:])
        assert difference(np.asarray(patches[0, t]).reshape(16, 16), want) < 2e-5
        assert difference(np.asarray(cls[0, t]), want_cls) < 2e-5
    assert difference(np.asarray(patches[0, 0]).reshape(16, 16), want) > 1e-2  # of the other frame
    back = weights.to_torch(cfg, params)
    assert all(np.array_equal(back[name], w[name]) for name in w) and back.keys() == w.keys()


def test_other_sizes_interpolate_positions_as_the_published_models_do():
    cfg = models.config("dinov2", **TINY)
    w = generated(cfg)
    image = np.random.RandomState(1).uniform(-1, 1, (1, 1, 4, 12, 3)).astype(np.float32)
    got = models.build(cfg).apply({"params": weights.from_torch(cfg, w)}, image)
    square = w["pos_embed"][0, 1:].reshape(4, 4, 16).astype(np.float64)
    kept = np.einsum("rg,cw,gwd->rcd", naive(4, 2, 2.1 / 4), naive(4, 6, 6.1 / 4), square).reshape(12, 16)
    plain = np.einsum("rg,cw,gwd->rcd", naive(4, 2, 2 / 4), naive(4, 6, 6 / 4), square).reshape(12, 16)
    got = np.asarray(got).reshape(12, 16)
    assert difference(got, oracle(cfg, w, image[0, 0].astype(np.float64), kept)[1]) < 2e-5
    assert difference(got, oracle(cfg, w, image[0, 0].astype(np.float64), plain)[1]) > 1e-4


def naive(old: int, new: int, scale: float) -> np.ndarray:
    """Bicubic interpolation with repeated edges, tap by tap (a = -0.75)."""
    matrix, a = np.zeros((new, old)), -0.75
    for i in range(new):
        at = (i + 0.5) / scale - 0.5
        t = at - np.floor(at)
        taps = [
            a * (t**3 - 2 * t**2 + t),
            (a + 2) * t**3 - (a + 3) * t**2 + 1,
            -(a + 2) * t**3 + (2 * a + 3) * t**2 - a * t,
            a * (t**2 - t**3),
        ]
        for k, weight in enumerate(taps):
            matrix[i, int(np.clip(np.floor(at) - 1 + k, 0, old - 1))] += weight
    return matrix


@pytest.mark.parametrize("antialias", [False, True])
def test_resampling_keeps_constants_and_antialiasing_widens(antialias):
    for old, new in ((8, 3), (3, 8), (5, 5)):
        matrix = bicubic(old, new, new / old, antialias)
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
        if old == new:
            np.testing.assert_allclose(matrix, np.eye(old), atol=1e-6)
    assert np.abs(bicubic(8, 3, 3 / 8, True) - bicubic(8, 3, 3 / 8, False)).max() > 0.1


def test_the_published_sizes_have_the_published_names_and_shapes():
    small = weights.torch_shapes(models.config("dinov2", **SIZES["s"]))
    assert small["pos_embed"] == (1, 1370, 384) and small["blocks.11.mlp.fc1.weight"] == (1536, 384)
    assert sum(int(np.prod(s)) for s in small.values()) == 22_056_576 - 384  # less the mask token
    giant = weights.torch_shapes(models.config("dinov2", **SIZES["g"], num_register_tokens=4))
    assert giant["blocks.39.mlp.w12.weight"] == (8192, 1536) and giant["register_tokens"] == (1, 4, 1536)


def test_the_hugging_face_layout_gives_the_same_parameters(tmp_path):
    cfg = models.config("dinov2", **TINY, num_register_tokens=4)
    ours = generated(cfg)
    theirs = {"embeddings.mask_token": np.zeros((1, 16), np.float32)}
    renamed = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "pos_embed": "embeddings.position_embeddings",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "blocks.": "encoder.layer.",
    }
    for name, tensor in ours.items():
        if name in ("cls_token", "register_tokens"):
            name = f"embeddings.{name}"
        if name.startswith("norm."):
            name = f"layernorm.{name[5:]}"
        for our, their in renamed.items():
            name = name.replace(our, their)
        if "attn.qkv" in name:
            for part, which in zip(np.split(tensor, 3), ("query", "key", "value"), strict=True):
                theirs[name.replace("attn.qkv", f"attention.attention.{which}")] = part
        else:
            theirs[name] = tensor
    back = from_huggingface(theirs)
    assert back.keys() == ours.keys() and all(np.array_equal(back[n], ours[n]) for n in ours)
    for name, content in (("ours", ours), ("theirs", theirs)):  # a file of either kind opens
        save_file({n: np.ascontiguousarray(t) for n, t in content.items()}, tmp_path / f"{name}.safetensors")
        opened = load.open_leaves(cfg, tmp_path / f"{name}.safetensors")
        chex.assert_trees_all_equal(opened.tree(), weights.from_torch(cfg, ours))
    del theirs["encoder.layer.0.norm1.bias"]
    with pytest.raises(UserError, match="missing blocks.0.norm1.bias"):
        weights.from_torch(cfg, from_huggingface(theirs))
    assert not belongs("mask_token") and belongs("cls_token")


def test_what_the_model_cannot_take_is_an_error():
    cfg = models.config("dinov2", **TINY)
    with pytest.raises(UserError, match="multiples of 2 pixels"):
        models.build(cfg).apply({"params": weights.from_torch(cfg, generated(cfg))}, np.zeros((1, 1, 3, 4, 3)))
    with pytest.raises(UserError, match="ffn_layer"):
        models.config("dinov2", ffn_layer="swiglu")
