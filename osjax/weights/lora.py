"""Adapters of the MMDiT in terms of the original's layers.

A layer of the original may be several of ours (v_mlp: v and the feed-forward; a fused qkv). Each of ours has a pair of
its own, so the original's pair has their ranks one after the other, as blocks of zeros elsewhere; the scale stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import lora
from osjax.models.lora import LoRAConfig
from osjax.models.mmdit.config import MMDiTConfig
from osjax.types import NamedTree
from osjax.weights import flux_diffusers
from osjax.weights.layout import OPEN_SORA_V2, Layout
from osjax.weights.mmdit import head_order
from osjax.weights.rules import SAME, Op, Rule, whole
from osjax.weights.rules import Path as LeafPath

Modules = Mapping[str, tuple[np.ndarray, np.ndarray]]  # (A (r, in), B (out, r)) of the original's layers by name


@dataclass(frozen=True)
class Adapters:
    """Adapters of a model in memory. cfg: rank and scale. tree: {a, b} of every adapted layer (`models/lora.py`).

    magnitudes: of weight-decomposed ones, see dora.py; None for others, which are a and b alone.
    """

    cfg: LoRAConfig
    tree: NamedTree
    magnitudes: "Magnitudes | None" = None

    def plain(self, path: Path) -> "Adapters":
        """The adapters themselves, where they are a and b alone. path: where they come from; UserError for others."""
        if self.magnitudes is not None:
            raise UserError(f"{path} is DoRA, whose magnitudes only a whole model can take: `osjax convert` merges it")
        return self


@dataclass(frozen=True)
class Magnitudes:
    """Lengths that the rows of adapted matrices are brought to. cfg, layout: of the MMDiT whose layers they are of.

    rows: by the original's names, (out,) each.
    """

    cfg: MMDiTConfig
    layout: Layout
    rows: Mapping[str, np.ndarray]


def parts_of(cfg: MMDiTConfig, layout: Layout) -> dict[str, list[Rule]]:
    """The kernels of ours that a layer of the original is made of, by its name. cfg, layout: of the MMDiT."""
    out: dict[str, list[Rule]] = {}
    for rule in weights.table(cfg, layout):
        if rule.leaf[-1] == "kernel":
            out.setdefault(rule.torch.removesuffix(".weight"), []).append(rule)
    return out


def layer_names(cfg: MMDiTConfig, layout: Layout) -> set[str]:
    """Names of the original's dense layers, which adapters may be of, in this layout. cfg: of the MMDiT."""
    return set(parts_of(cfg, layout))


def window_of(rule: Rule) -> tuple[slice, slice]:
    """Rows and columns of the original's matrix that `rule` is of."""
    return whole(rule.shape, rule.part)


def place_of_pair(cfg: MMDiTConfig, layout: Layout, rule: Rule) -> tuple[LeafPath, tuple, tuple, Op]:
    """Path of the layer; where its a and its b hold what `rule` is of; change of the order of b's last axis.

    cfg, layout: of the MMDiT.
    """
    block, which = (*rule.at, None, None)[0], rule.at[2] if len(rule.at) == 3 else None
    stacked = () if block is None else (block,)
    if which is None:
        swapped = layout.diffusers and rule.leaf[:-1] == flux_diffusers.MODULATION
        return rule.leaf[:-1], stacked, stacked, flux_diffusers.halves_swapped(rule.shape[0]) if swapped else SAME
    order = head_order(cfg, layout) if which < 2 else SAME
    return rule.leaf[:-1], (*stacked, slice(None), which), (*stacked, which), order


def to_torch(cfg: MMDiTConfig, adapters: Adapters, layout: Layout = OPEN_SORA_V2) -> Modules:
    """The adapters of the MMDiT `cfg` as pairs of the original's layers in this layout."""
    pairs, rank, out = lora.pairs(adapters.tree), adapters.cfg.rank, {}
    for name, rules in parts_of(cfg, layout).items():
        rules = [rule for rule in rules if rule.leaf[:-1] in pairs]
        if not rules:
            continue
        n_out, n_in = rules[0].shape
        A, B = np.zeros((len(rules) * rank, n_in), np.float32), np.zeros((n_out, len(rules) * rank), np.float32)
        for i, rule in enumerate(rules):
            rows, columns = window_of(rule)
            path, at_a, at_b, order = place_of_pair(cfg, layout, rule)
            a, b = np.asarray(pairs[path]["a"])[at_a], np.asarray(pairs[path]["b"])[at_b]
            b = order.to_torch(b)
            mine = slice(i * rank, (i + 1) * rank)
            A[mine, columns], B[rows, mine] = a.reshape(-1, rank).T, b.reshape(rank, -1).T
        out[name] = A, B
    return out


def from_own(
    path: Path, cfg: MMDiTConfig, lora_cfg: LoRAConfig, modules: Modules, layout: Layout = OPEN_SORA_V2
) -> Adapters:
    """The adapters that `to_torch` made these pairs of, bit for bit.

    path: for messages. cfg, layout: of the MMDiT. lora_cfg: rank and scale that they were trained with. modules: the
    pairs by the original's names, complete.
    UserError for pairs that do not fit the model.
    """
    tree, rank = blank(cfg, lora_cfg), lora_cfg.rank
    pairs, used = lora.pairs(tree), set()
    for name, rules in parts_of(cfg, layout).items():
        rules = [rule for rule in rules if rule.leaf[:-1] in pairs]
        if not rules:
            continue
        A, B = modules.get(name, (np.zeros((0, 0)),) * 2)
        if (A.shape, B.shape) != ((len(rules) * rank, rules[0].shape[1]), (rules[0].shape[0], len(rules) * rank)):
            raise UserError(f"{path} does not fit the model at {name}: check the model config and the layout")
        used.add(name)
        for i, rule in enumerate(rules):
            mine = slice(i * rank, (i + 1) * rank)
            _fill(cfg, layout, rule, pairs, A[mine], B[:, mine])
    _check_used(path, modules, used)
    return Adapters(lora_cfg, tree)


def from_foreign(
    path: Path,
    cfg: MMDiTConfig,
    modules: Modules,
    scales: Mapping[str, float],
    layout: Layout = OPEN_SORA_V2,
    magnitudes: Mapping[str, np.ndarray] | None = None,
) -> Adapters:
    """The adapters that another tool's pairs of the original's layers are.

    Every part of a layer takes the whole rank of its pair; smaller ranks are filled up with zeros. path: for messages.
    cfg, layout: of the MMDiT. modules: the pairs by the original's names. scales: alpha / rank of each layer.
    magnitudes: of weight-decomposed layers, (out,) each. UserError for pairs that do not fit the model.
    """
    parts = parts_of(cfg, layout)
    _check_used(path, modules, parts.keys())
    targets = sorted({"/".join(rule.leaf[:-1]) for name in modules for rule in parts[name]})
    rank, same = max(len(a) for a, _ in modules.values()), len(set(scales.values())) == 1
    scale = next(iter(scales.values()))
    scale = scale if same and scale > 0 else 1.0  # unlike and negative ones go into b
    lora_cfg = LoRAConfig(rank, scale * rank, tuple(targets))
    tree = blank(cfg, lora_cfg)
    pairs = lora.pairs(tree)
    for name, (A, B) in modules.items():
        if (B.shape[0], A.shape[1]) != parts[name][0].shape:
            raise UserError(f"{path} does not fit the model at {name}: check the model config and the layout")
        A, B = (x.astype(np.float32) for x in (A, B))
        A = np.concatenate([A, np.zeros((rank - len(A), A.shape[1]), np.float32)])
        B = np.concatenate([B, np.zeros((len(B), rank - B.shape[1]), np.float32)], 1) * np.float32(scales[name] / scale)
        for rule in parts[name]:
            _fill(cfg, layout, rule, pairs, A, B)
    return Adapters(lora_cfg, tree, Magnitudes(cfg, layout, magnitudes) if magnitudes else None)


def _fill(cfg: MMDiTConfig, layout: Layout, rule: Rule, pairs, A: np.ndarray, B: np.ndarray) -> None:
    rows, columns = window_of(rule)
    path, at_a, at_b, order = place_of_pair(cfg, layout, rule)
    a, b = pairs[path]["a"], pairs[path]["b"]
    a[at_a] = A[:, columns].T.reshape(a[at_a].shape)
    b[at_b] = order.to_leaf(B[rows].T.reshape(b[at_b].shape))


def _check_used(path: Path, modules, known) -> None:
    unknown = [name for name in modules if name not in known]
    if unknown:
        raise UserError(f"{path} adapts {unknown[0]}, which this model does not have: check model and layout")


def blank(cfg: MMDiTConfig, lora_cfg: LoRAConfig) -> dict[str, Any]:
    """A tree of float32 zeros in the shapes of the MMDiT `cfg`'s adapters of rank and targets `lora_cfg`."""
    boxed = models.abstract_params(cfg)
    made = jax.eval_shape(lambda: nn.unbox(lora.create(lora_cfg, boxed, jax.random.key(0))))
    return jax.tree.map(lambda x: np.zeros(x.shape, np.float32), made)
