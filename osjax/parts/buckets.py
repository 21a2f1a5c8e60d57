"""Rows of `data.buckets` as the table that sorts clips into batches."""

from collections.abc import Sequence
from typing import Any

from jax.sharding import AbstractMesh, Mesh

from osjax.data import buckets
from osjax.errors import UserError


def table(
    rows: Sequence[Any], per_device: bool, fps_max: float, multiple: int, mesh: Mesh | AbstractMesh, key: str = "data"
) -> buckets.Buckets:
    """The buckets of rows (resolution, frames, probability to keep, batch).

    per_device: batches are of one data-parallel device. fps_max: frames per second that clips are brought down to.
    multiple: what heights and widths divide by, in pixels. mesh: over which a batch is split. key: the group's dotted
    name. UserError for a row that is none, and for a batch that does not divide over the mesh.
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
    return buckets.Buckets(rules, multiple, fps_max)
