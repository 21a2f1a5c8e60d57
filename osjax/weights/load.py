"""Weights from what a user names straight to the devices: each gets its part, the host holds a piece at a time."""

import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from numpy.typing import DTypeLike

from osjax import models, weights
from osjax.errors import UserError
from osjax.models import shapes
from osjax.types import ModelConfig, NamedTree
from osjax.weights import dinov2, io, orbax_stream, prefix, published
from osjax.weights.layout import FLUX_DIFFUSERS, OPEN_SORA_V2, Layout
from osjax.weights.leaves import Leaves, slabs
from osjax.weights.rules import Window, whole

log = logging.getLogger(__name__)
PIECE = 2**29  # bytes of a device's part that are on the host at once
OTHERS = {"t5": ("decoder.", "lm_head.")}  # prefixes in published files that hold a whole model, where we run a part


def open_leaves(cfg: ModelConfig, path: Path | str, *, layout: Layout = OPEN_SORA_V2, average: bool = False) -> Leaves:
    """The parameters of the model `cfg` in a weight file, a folder of them or an osjax checkpoint; nothing is read yet.

    path: the file or folder. layout: of files with the original's names; those of diffusers' FLUX tell themselves
    apart. average: take the moving average of a checkpoint, where it has one.
    A prefix before all names is taken off, which the log says. UserError that lists what does not fit the model, and
    says what the file is where that is known.
    """
    checkpoint = orbax_stream.find(path, average)
    if checkpoint is None:
        return _of_files(cfg, Path(path), layout)
    leaves = orbax_stream.open_leaves(checkpoint)
    _check_shapes(checkpoint, leaves.shapes, weights.leaf_shapes(cfg))
    return leaves


def of_checkpoint(folder: epath.PathLike, average: bool = True) -> Leaves:
    """The parameters of the newest checkpoint in a folder; average: their moving average where it has one."""
    newest = orbax_stream.find(folder, average=average)
    if newest is None:
        raise UserError(f"{folder} holds no checkpoint to start from: train that stage first")
    return orbax_stream.open_leaves(newest)


def _of_files(cfg: ModelConfig, path: Path, layout: Layout) -> Leaves:
    parts = sorted(path.glob("vgg*.pth")) if models.family_of(cfg) == "lpips" else []
    if len(parts) == 2:  # published as two files: vgg.pth, which are the heads, and vgg16-....pth
        heads, features = map(io.open_tensors, parts)
        return weights.torch_leaves(cfg, _table_module(cfg).from_published(features, heads))
    tensors = io.open_tensors(path)
    expected = weights.torch_shapes(cfg, layout=layout)
    published.check(path, tensors, expected)
    if models.family_of(cfg) == "dinov2" and dinov2.is_huggingface(tensors):
        return weights.torch_leaves(cfg, dinov2.from_huggingface(tensors))
    named, said = prefix.strip(tensors, expected)
    if not expected.keys() & named.keys() and weights.has_layouts(models.family_of(cfg)):
        theirs = weights.torch_shapes(cfg, layout=FLUX_DIFFUSERS)
        again, again_said = prefix.strip(tensors, theirs)
        if theirs.keys() & again.keys():
            named, said, expected, layout = again, again_said, theirs, FLUX_DIFFUSERS
    named = of_model(cfg, named)
    published.check_types(path, named, expected)
    try:
        leaves = weights.torch_leaves(cfg, named, layout=layout)
    except UserError as error:
        own = 2 * len(expected.keys() & named.keys()) > len(named)  # of this kind, if of other sizes
        raise UserError(f"{path}: {error}{'' if own else published.looks_like(named)}") from error
    if said:
        log.warning("%s: names are read without %s", path, said)
    if left := len(tensors) - len(named):
        log.info("%s: %d tensors belong to other models and are left out", path, left)
    return leaves


def of_model(cfg: ModelConfig, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tensors of a published file that belong to the model `cfg`, where such files also hold other models."""
    others = OTHERS.get(models.family_of(cfg), ())
    belongs = getattr(_table_module(cfg), "belongs", lambda name: True)
    return {name: t for name, t in tensors.items() if belongs(name) and not name.startswith(others)}


def _table_module(cfg):
    return import_module(f"osjax.weights.{models.family_of(cfg)}")


def _check_shapes(folder: Path, there: Mapping, model: Mapping) -> None:
    if problems := shapes.differences(there, model):
        raise UserError(f"{folder} does not fit the model: {shapes.listed(problems, 10)}. Check the model config.")


def place(leaves: Leaves, shardings: NamedTree, dtype: DTypeLike | None = None) -> dict[str, Any]:
    """The params tree of these leaves on the devices: arrays with these shardings, a tree like the params.

    dtype: of the arrays; None keeps every leaf's. Other hosts read and place the parts of their own devices.
    """
    leaves = leaves.cast(dtype)
    return unflatten_dict({path: _place(leaves, path, s) for path, s in flatten_dict(shardings).items()})


def _place(leaves: Leaves, path: tuple[str, ...], sharding: jax.sharding.Sharding) -> jax.Array:
    shape = leaves.shapes[path]
    devices_of: dict[tuple, list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        window = whole(shape, index)
        devices_of.setdefault(tuple((w.start, w.stop) for w in window), []).append(device)
    parts = []
    for bounds, devices in devices_of.items():
        parts += _part(leaves, path, tuple(slice(*b) for b in bounds), devices)
    return jax.make_array_from_single_device_arrays(shape, sharding, parts, dtype=leaves.dtypes[path])


def _part(leaves: Leaves, path: tuple[str, ...], window: Window, devices: list[jax.Device]) -> list[jax.Array]:
    """One window of a leaf on each of these devices. A large one is put together there from pieces."""
    dtype, shape = leaves.dtypes[path], tuple(w.stop - w.start for w in window)
    if np.prod(shape) * dtype.itemsize <= PIECE:
        piece = leaves.read(path, window)
        return jax.block_until_ready([jax.device_put(piece, device) for device in devices])
    buffers = [jnp.zeros(shape, dtype, device=device) for device in devices]
    for inner in slabs(shape, dtype.itemsize, PIECE // 2):
        shifted = [slice(w.start + i.start, w.start + i.stop) for w, i in zip(window, inner, strict=True)]
        piece = leaves.read(path, tuple(shifted))
        start = np.int32(inner[0].start)
        for i, device in enumerate(devices):
            buffers[i] = _write_rows(buffers[i], *jax.device_put((piece, start), device))
        jax.block_until_ready(buffers)
    return buffers


@jax.jit(donate_argnums=0)
def _write_rows(buffer: jax.Array, piece: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, piece, start, 0)
