"""Parameters to and from an Orbax checkpoint piece by piece, in the layout that `training/checkpoint.py` reads.

Orbax itself takes whole arrays, and a leaf that stacks 38 blocks of the 11B model has 2.9 GB. Here a leaf goes through
memory in slabs: Orbax makes the folder, the metadata and the commit, this file's type handler writes the values.
"""

import asyncio
import math
import os
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath
from flax.traverse_util import unflatten_dict

import osjax
from osjax import integrity, json_file
from osjax.errors import UserError
from osjax.object_store import is_url, reaching
from osjax.types import Json
from osjax.weights.leaves import Leaves, slabs
from osjax.weights.rules import Path as LeafPath
from osjax.weights.rules import Window, extent

CHUNK = 2**24  # bytes; what another mesh reads of a chunk beyond its shard is wasted
IN_FLIGHT = 2**28  # bytes between reading and the disk
ITEM = "params"


class _LazyArray:
    """One leaf of `Leaves` as Orbax's tree of arrays holds it."""

    def __init__(self, leaves: Leaves, path: LeafPath):
        self.shape, self.dtype = leaves.shapes[path], leaves.dtypes[path]
        self.read = lambda window: leaves.read(path, window)


class _LazyHandler(ocp.type_handlers.NumpyHandler):
    """Writes `_LazyArray`s slab by slab; restored they are arrays like any other."""

    async def serialize(self, values, infos, args=None):
        budget = _Budget(IN_FLIGHT)
        # All leaves at once: what is written together becomes one commit of the store, and small leaves are many.
        writing = [self._write(*pair, budget) for pair in zip(values, infos, strict=True)]
        # And all to their ends: what went on writing after the first error would come after the folder was removed.
        for error in await asyncio.gather(*writing, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error
        return []

    async def _write(self, value: _LazyArray, info: Any, budget: "_Budget") -> None:
        await info.await_path_creation()
        windows = list(slabs(value.shape, value.dtype.itemsize))
        spec = ocp.type_handlers.get_json_tspec_write(
            info,
            use_ocdbt=True,
            global_shape=value.shape,
            local_shape=extent(windows[0]),
            dtype=value.dtype,
            process_index=0,
            arg=ocp.SaveArgs(chunk_byte_size=CHUNK),
        )
        store = await ts.open(ts.Spec(spec), create=True, open=True, context=info.ts_context)
        for window in windows:
            if budget.spoiled:
                return
            async with budget.of(math.prod(extent(window)) * value.dtype.itemsize):
                piece = await asyncio.to_thread(value.read, window)
                await store[window].write(piece, can_reference_source_data_indefinitely=True)


class _Budget:
    """Bytes that may be in memory at once; one piece always may, whatever its size."""

    def __init__(self, total: int):
        self.total, self.taken, self.change, self.spoiled = total, 0, asyncio.Condition(), False

    @asynccontextmanager
    async def of(self, size: int):
        async with self.change:
            await self.change.wait_for(lambda: not self.taken or self.taken + size <= self.total)
            self.taken += size
        try:
            yield
        except BaseException:
            self.spoiled = True  # nobody need go on
            raise
        finally:
            async with self.change:
                self.taken -= size
                self.change.notify_all()


def save(folder: Path, leaves: Leaves, config: dict[str, Any]) -> None:
    """Write leaves as the parameters of checkpoint 0 in `folder`, with the model's config in JSON; sealed beside it."""
    folder = Path(folder).resolve()
    tree = unflatten_dict({path: _LazyArray(leaves, path) for path in leaves.shapes})
    handler_of = {_LazyArray: _LazyHandler(), jax.Array: ocp.type_handlers.ArrayHandler()}  # else Orbax misses one
    registry = ocp.type_handlers.create_type_handler_registry(*handler_of.items())
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    handlers = {name: ocp.JsonCheckpointHandler() for name in ("data", "config", "versions")}
    handlers[ITEM] = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    versions = {"osjax": osjax.__version__, "jax": version("jax"), "orbax-checkpoint": version("orbax-checkpoint")}
    items = {
        ITEM: ocp.args.PyTreeSave(tree),
        "data": ocp.args.JsonSave({}),
        "config": ocp.args.JsonSave(config),
        "versions": ocp.args.JsonSave(versions),
    }
    try:
        with ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as manager:
            manager.save(0, args=ocp.args.Composite(**items))
        integrity.write_seal(epath.Path(folder) / "0")
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}") from error


def find(path: epath.PathLike, average: bool = False) -> epath.Path | None:
    """The folder with the parameters of the newest checkpoint in or at `path`; None where there is none.

    path: local, or gs:// or s3://. average: their moving average instead, where the checkpoint has one.
    """
    with reaching(path):
        return _find(epath.Path(path), average)


def _find(path: epath.Path, average: bool) -> epath.Path | None:
    items = ("ema", ITEM) if average else (ITEM,)
    if not path.is_dir():
        return None
    steps = sorted((p for p in path.iterdir() if p.name.isdigit() and p.is_dir()), key=lambda p: int(p.name))
    for candidate in (path, *(folder / item for folder in (path, *steps[::-1]) for item in items)):
        if (candidate / "_METADATA").is_file() and (candidate / "manifest.ocdbt").is_file():
            return candidate
    return None


def saved_config(folder: epath.Path) -> Json:
    """What the checkpoint keeps as its config that a folder of parameters (see `find`) belongs to; else nothing."""
    try:
        return json_file.read(folder.parent / "config" / "metadata", "-")
    except UserError:
        return {}


def open_leaves(folder: epath.Path | Path) -> Leaves:
    """The parameters in an Orbax folder (see `find`), read where they are sliced. UserError for what is no such one.

    folder: local, or gs:// or s3://, of which ranges are read.
    """
    with reaching(folder):
        integrity.check(epath.Path(folder), sums=False)
    try:
        stores = _open_all(folder)
        for path, store in stores.items():
            # TensorStore allocates a whole chunk, and ends the process where it cannot.
            chunk, shape = store.chunk_layout.read_chunk.shape or (), store.shape  # None for a scalar
            if any(side > max(1, most) for side, most in zip(chunk, shape, strict=True)):
                raise ValueError(f"{'/'.join(path)} of {tuple(shape)} is in chunks of {tuple(chunk)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{folder} is no readable checkpoint ({first}): give one that osjax wrote") from error

    def read(path: LeafPath, window: Window) -> np.ndarray:
        try:
            return stores[path][window].read().result()
        except ValueError as error:
            first = str(error).splitlines()[0][:200]
            raise UserError(f"{folder} is damaged at {'/'.join(path)} ({first}): convert or train it anew") from error

    return Leaves(
        {path: tuple(store.shape) for path, store in stores.items()},
        {path: np.dtype(store.dtype.numpy_dtype) for path, store in stores.items()},
        read,
    )


def _open_all(folder: epath.Path | Path) -> dict[LeafPath, ts.TensorStore]:
    content = json_file.read(folder / "_METADATA", "give a checkpoint that osjax wrote", ("tree_metadata",))
    base = _base(folder)
    context = ts.Context({"cache_pool": {"total_bytes_limit": CHUNK}})
    opening = {}
    for entry in content["tree_metadata"].values():
        if entry["value_metadata"]["skip_deserialize"]:  # a place in the tree that holds nothing
            continue
        path = tuple(str(key["key"]) for key in entry["key_metadata"])
        spec = {
            "driver": "zarr3" if content.get("use_zarr3") else "zarr",
            "kvstore": {"driver": "ocdbt", "base": base, "path": ".".join(path)},
        }
        opening[path] = ts.open(spec, open=True, read=True, context=context)
    return {path: store.result() for path, store in opening.items()}


def _base(folder: epath.Path | Path) -> Json:
    """What TensorStore calls the files of a folder."""
    if not is_url(folder):
        return {"driver": "file", "path": f"{folder.absolute()}/"}
    front, _, rest = str(folder).partition("://")
    bucket, _, path = rest.partition("/")
    base = {"driver": {"gs": "gcs"}.get(front, front), "bucket": bucket, "path": f"{path}/"}
    if front == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        base |= {"endpoint": endpoint, "aws_region": region}
    return base
