"""Rows of `data.buckets` as the table that sorts clips into batches."""

from collections.abc import Sequence
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from osjax.data import buckets, choose, dataset
from osjax.errors import UserError
from osjax.models.autoencoder import Stride
from osjax.parts.data import DataKeys


def table(
    rows: Sequence[Any],
    per_device: bool,
    fps_max: float,
    multiple: int,
    mesh: Mesh | AbstractMesh,
    key: str = "data",
    aspects: Sequence[str] = (),
) -> buckets.Buckets:
    """The buckets of rows (resolution, frames, probability to keep, batch).

    per_device: batches are of one data-parallel device. fps_max: frames per second that clips are brought down to.
    multiple: what heights and widths divide by, in pixels. mesh: over which a batch is split. key: the group's dotted
    name. aspects: the only aspect ratios; none: all. UserError for a row that is none, and for a batch that does not
    divide over the mesh.
    """
    rules: dict[str, dict[int, buckets.Rule]] = {}
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    for row in rows:
        try:
            resolution, frames, keep, batch = row
            frames, keep, batch = int(frames), float(keep), int(batch)
        except (TypeError, ValueError) as error:
            raise UserError(f"{key}.buckets: {row!r} is no row (resolution, frames, keep, batch)", status=2) from error
        if frames < 1 or batch < 1 or not 0 <= keep <= 1:
            raise UserError(f"{key}.buckets: {row!r} needs frames and batch of 1 or more, keep in [0, 1]", status=2)
        batch = batch * devices if per_device else batch
        if batch % devices:
            near = -(-batch // devices) * devices
            raise UserError(
                f"{key}.buckets: a batch of {batch} does not divide over data * fsdp = {devices}: use {near}", status=2
            )
        rules.setdefault(resolution, {})[frames] = buckets.Rule(keep=keep, batch_size=batch)
    if not rules:
        raise UserError(f'{key}.buckets is empty: give rows such as ("256px", 33, 1.0, 12)', status=2)
    return buckets.Buckets(rules, multiple, fps_max, aspects)


def chosen(keys: DataKeys, stride: Stride, multiple: int) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Rows of buckets and the aspect ratios that the clips of a data set ask for; those of the config where it has any.

    keys: the `data` group of a stage. stride: of its autoencoder. multiple: as `table` takes it. UserError where no
    clip is large and long enough.
    """
    asked = keys.choose
    if not asked.resolution:
        return keys.buckets, ()
    if not keys.source:
        raise UserError("data.choose looks at the clips of data.source: give it, a data set of `osjax data build`")
    entries = dataset.open_source(keys.source).index()
    fit = choose.large_enough(entries, asked.resolution)
    first = 1 + stride.time if stride.causal else stride.time
    frames = choose.frames_left(fit, keys.fps_max)
    numbers = choose.lengths(frames, range(first, asked.frames + 1, stride.time), asked.lengths)
    batches = dict.fromkeys(numbers, asked.batch) | ({1: asked.images} if asked.images and (frames == 1).any() else {})
    if not batches:
        raise UserError(
            f"none of the {len(entries)} clips has {first} frames or more at {keys.fps_max:g} frames per second and "
            f"{buckets.ENOUGH_PIXELS:.0%} of the pixels of {asked.resolution}: lower "
            "data.choose.resolution, or add clips"
        )
    rows = tuple((asked.resolution, number, 1.0, batch) for number, batch in batches.items())
    return rows, choose.aspects(fit, asked.resolution, multiple, asked.aspects)
