"""Where each tensor of LPIPS lives in the Flax tree (Open-Sora opensora/models/vae/lpips.py).

The original makes its state dict of two published files: the features of torchvision's VGG16 (vgg16-397923af.pth) and
the heads (vgg.pth). `from_published` does the same with what `io.open_tensors` finds in them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from osjax.models.lpips import CONVS, SCALE, SHIFT, LPIPSConfig
from osjax.weights.rules import Op, Rule, reshape, transpose


def table(cfg: LPIPSConfig) -> list[Rule]:
    """The rules of the model `cfg`: every tensor of the original's state dict."""
    rules = [Rule(f"scaling_layer.{name}", (1, 3, 1, 1), (name,), reshape((1, 3, 1, 1), (3,))) for name in _SCALING]
    before = 3
    for (level, n), place in _places().items():
        width = cfg.chns[level]
        name, leaf = f"net.slice{level + 1}.{place}", (f"level{level}", f"conv{n}")
        shape = (width, before, 3, 3)
        rules.append(Rule(f"{name}.weight", shape, (*leaf, "kernel"), _kernel(shape)))
        rules.append(Rule(f"{name}.bias", (width,), (*leaf, "bias")))
        before = width
    for level, width in enumerate(cfg.chns):
        shape = (1, width, 1, 1)
        rules.append(Rule(f"lin{level}.model.1.weight", shape, (f"head{level}",), reshape(shape, (width,))))
    return rules


def from_published(vgg16: Mapping[str, Any], heads: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors with the original's names, for `from_torch`.

    vgg16: those of torchvision's file. heads: those of the heads' file. The classifier behind the features is left out.
    What is missing or misshapen is found by `from_torch`.
    """
    places = {f"features.{place}": f"net.slice{level + 1}.{place}" for (level, _), place in _places().items()}
    tensors = {f"scaling_layer.{n}": np.array(v, np.float32).reshape(1, 3, 1, 1) for n, v in _SCALING.items()}
    for name, tensor in vgg16.items():
        if not name.startswith("classifier."):
            layer, _, part = name.rpartition(".")
            tensors[f"{places.get(layer, layer)}.{part}"] = tensor
    return {**tensors, **heads}


_SCALING = {"shift": SHIFT, "scale": SCALE}


def _places() -> dict[tuple[int, int], int]:
    """(level, convolution) -> its number in VGG16, which counts ReLUs and poolings as well."""
    places, place = {}, 0
    for level, convs in enumerate(CONVS):
        for n in range(convs):
            places[level, n] = place
            place += 2  # the convolution and its ReLU
        place += 1  # the pooling
    return places


def _kernel(shape: tuple[int, ...]) -> Op:
    """torch (out, in, h, w) -> flax (1, h, w, in, out)."""
    return transpose(2, 3, 4, 1, 0) @ reshape(shape, (*shape[:2], 1, *shape[2:]))
