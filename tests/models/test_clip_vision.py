"""The CLIP vision tower and the aesthetic predictor against plain numpy with the published names."""

import numpy as np
import pytest

from osjax import models, weights
from osjax.errors import UserError
from osjax.models.clip_vision import MEAN, STD
from osjax.weights.clip_vision import belongs
from tests import golden

TINY = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "projection_dim": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


def generated(cfg) -> dict[str, np.ndarray]:
    return {name: golden.generate(name, shape) for name, shape in weights.torch_shapes(cfg).items()}


def layer_norm(x, w, name):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x, w, name):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def oracle(cfg, w, image_HWC):
    """The embedding of one image, in float64."""
    w = {name: value.astype(np.float64) for name, value in w.items()}
    p, D, h, root = cfg.patch_size, cfg.hidden_size, cfg.num_attention_heads, "vision_model"
    pixels = ((image_HWC + 1) / 2 - np.array(MEAN)) / np.array(STD)
    tokens = [w[f"{root}.embeddings.class_embedding"]]
    for top in range(0, cfg.image_size, p):
        for left in range(0, cfg.image_size, p):
            cell = pixels[top : top + p, left : left + p]
            tokens.append(np.einsum("hwc,ochw->o", cell, w[f"{root}.embeddings.patch_embedding.weight"]))
    x = np.stack(tokens) + w[f"{root}.embeddings.position_embedding.weight"]
    x = layer_norm(x, w, f"{root}.pre_layrnorm")
    for n in range(cfg.num_hidden_layers):
        layer = f"{root}.encoder.layers.{n}"
        y = layer_norm(x, w, f"{layer}.layer_norm1")
        q, k, v = (linear(y, w, f"{layer}.self_attn.{name}_proj") for name in "qkv")
        mixed = np.zeros_like(x)
        for head in range(h):
            part = slice(head * D // h, (head + 1) * D // h)
            scores = np.exp(q[:, part] @ k[:, part].T / np.sqrt(D / h))
            mixed[:, part] = scores / scores.sum(-1, keepdims=True) @ v[:, part]
        x = x + linear(mixed, w, f"{layer}.self_attn.out_proj")
        y = linear(layer_norm(x, w, f"{layer}.layer_norm2"), w, f"{layer}.mlp.fc1")
        x = x + linear(y / (1 + np.exp(-1.702 * y)), w, f"{layer}.mlp.fc2")
    return layer_norm(x[0], w, f"{root}.post_layernorm") @ w["visual_projection.weight"].T


def test_embeddings_are_those_of_the_formulas_on_generated_weights():
    cfg = models.config("clip_vision", **TINY)
    w = generated(cfg)
    images = np.random.RandomState(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    params = weights.from_torch(cfg, w)
    got = models.build(cfg).apply({"params": params}, images)
    want = [oracle(cfg, w, image.astype(np.float64)) for image in images]
    assert golden.relative_error(got, want) < 2e-5 and golden.relative_error(got, want[::-1]) > 1e-2
    assert golden.relative_error(got, [oracle(cfg, w, image.transpose(1, 0, 2)) for image in images]) > 1e-2
    back = weights.to_torch(cfg, params)
    assert all(np.array_equal(back[name], w[name]) for name in w) and back.keys() == w.keys()


def test_the_published_tower_has_the_published_names_and_size():
    shapes = weights.torch_shapes(models.config("clip_vision"))
    assert shapes["vision_model.embeddings.position_embedding.weight"] == (257, 1024)
    assert shapes["vision_model.encoder.layers.23.mlp.fc1.weight"] == (4096, 1024)
    assert sum(int(np.prod(s)) for s in shapes.values()) == 303_966_208
    assert all(belongs(name) for name in shapes)
    assert not any(map(belongs, ("logit_scale", "text_model.final_layer_norm.bias", "text_projection.weight")))
    assert not belongs("vision_model.embeddings.position_ids")


def test_scores_are_those_of_the_linear_layers_on_normalised_embeddings():
    cfg = models.config("aesthetic")
    w = generated(cfg)
    assert [n for n in w if n.endswith("weight")] == [f"layers.{n}.weight" for n in (0, 2, 4, 6, 7)]
    assert w["layers.0.weight"].shape == (1024, 768) and w["layers.7.bias"].shape == (1,)
    embeddings = np.random.RandomState(0).standard_normal((5, 768)).astype(np.float32) * 7
    got = models.build(cfg).apply({"params": weights.from_torch(cfg, w)}, embeddings)
    x = embeddings.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    for n in (0, 2, 4, 6, 7):
        x = linear(x, w, f"layers.{n}")
    assert got.shape == (5,) and golden.relative_error(got, x[:, 0]) < 2e-5 and np.std(x) > 1e-3


def test_what_the_tower_cannot_take_is_an_error():
    cfg = models.config("clip_vision", **TINY)
    with pytest.raises(UserError, match="images of 8x8 pixels, got 8x9"):
        models.build(cfg).apply({"params": weights.from_torch(cfg, generated(cfg))}, np.zeros((1, 8, 9, 3)))
    with pytest.raises(UserError, match="does not divide into patches"):
        models.config("clip_vision", image_size=225)
    with pytest.raises(UserError, match="hidden_act 'gelu' is of another CLIP"):
        models.config("clip_vision", hidden_act="gelu")
