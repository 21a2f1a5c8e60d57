"""Muon: orthogonal momentum for the matrices between layers, AdamW with the same look ahead for all else.

A matrix's update has singular values near one, so that rare directions learn as fast as common ones. Its size is
brought to that of AdamW's updates, so that one learning rate and one weight decay hold for both.
Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is
scalable for LLM training", arXiv:2502.16982.
"""

from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers
from optax.contrib import muon as optax_muon

from osjax.errors import UserError

MOMENTUM = 0.95  # of matrices; like AdamW's with Nesterov's look ahead
RMS = 0.2  # of a matrix's update before the learning rate: what AdamW's has in practice
STACKS = ("double_blocks", "single_blocks")  # of the video model; their parameters have a leading axis over the depth
HALVES = ("encoder", "decoder")  # of an autoencoder
BOUNDARY = ("project_in", "project_out", "conv_in", "conv_out")  # of a half: to and from pixels and latents


def dimension_numbers(params: Any) -> Any:
    """Which axes of each parameter a matrix sums over and which it makes; None for what AdamW takes.

    params: of the velocity model or of an autoencoder, a tree of arrays or of boxes with them. Matrices are the kernels
    of the model's blocks: those of input, output and embedding layers, biases and scales are none, nor is a depthwise
    kernel. q, k and v are three matrices, and so is every layer of a stack. UserError where there is no matrix.
    """
    numbers = jax.tree_util.tree_map_with_path(_of_leaf, params)
    if not jax.tree.leaves(numbers, is_leaf=lambda x: isinstance(x, MuonDimensionNumbers)):
        raise UserError("optimizer.name is muon, but no matrix of the model trains: use adamw")
    return numbers


def make(rate: optax.Schedule, b1: float, b2: float, eps: float, weight_decay: float, mu_dtype: str) -> Any:
    """The update rule, an `optax.GradientTransformation`.

    rate: learning rate of an update. b1, b2: of AdamW. eps: of AdamW, and what Muon divides by beside the norm.
    weight_decay: of all parameters. mu_dtype: of the first moments, momentum among them.
    """
    return optax_muon(
        rate,
        beta=MOMENTUM,
        eps=eps,
        weight_decay=weight_decay,
        mu_dtype=mu_dtype,
        adam_b1=b1,
        adam_b2=b2,
        adam_weight_decay=weight_decay,
        muon_weight_dimension_numbers=dimension_numbers,
        consistent_rms=RMS,
    )


def _of_leaf(path: tuple[Any, ...], leaf: Any) -> MuonDimensionNumbers | None:
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    if "kernel" not in names:
        return None
    axes = range(leaf.ndim)
    if names[0] in STACKS:
        if "qkv" in names:  # (layers, in, which of the three, heads, head dimension)
            return MuonDimensionNumbers((1,), tuple(axes[3:]))
        return MuonDimensionNumbers(tuple(axes[1:-1]), (axes[-1],))
    if names[0] in HALVES and names[1] not in BOUNDARY and leaf.ndim >= 2 and leaf.shape[-2] > 1:
        return MuonDimensionNumbers(tuple(axes[:-1]), (axes[-1],))
    return None
