"""Cached features of clips: a TFDS data set in ArrayRecord shards, each of which is written in one piece.

Records keep the order of the clips, and a shard holds a fixed number of them, so that shards can be made in any order,
by any number of processes, over any number of runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from osjax import atomic
from osjax.data import dataset, fingerprints

NAME = "clips"


def features(shapes: Mapping[str, tuple[int, ...]], text: bool = False) -> tfds.features.FeaturesDict:
    """The TFDS features of examples with float32 arrays of these shapes, such as latents (T, H, W, C), text and index.

    shapes: by name. index: of the clip in its data set. text: there are also `txt`, the text states as the bytes of an
    array, and `vec`, the pooled vector, float32.
    """
    # As lists of numbers, TFDS's default, arrays take sixteen times as long to write.
    kinds = {
        name: tfds.features.Tensor(shape=shape, dtype=np.float32, encoding="bytes") for name, shape in shapes.items()
    }
    kinds |= {"text": tfds.features.Text(), "index": np.int64}
    if text:
        kinds |= {"txt": dataset.BYTES, "vec": tfds.features.Tensor(shape=(None,), dtype=np.float32)}
    return tfds.features.FeaturesDict(kinds)


def shards(clips: int, size: int) -> list[range]:
    """The places of each shard's clips. clips: how many there are. size: of a shard; the last has the rest."""
    return [range(start, min(start + size, clips)) for start in range(0, clips, size)]


def shard_file(folder: Path, number: int, count: int) -> Path:
    """The file of shard `number` of `count` in `folder`, as TFDS names it."""
    return folder / f"{NAME}-{dataset.SPLIT}.array_record-{number:05d}-of-{count:05d}"


def write_shard(path: Path, kinds: tfds.features.FeaturesDict, examples: Iterable[Mapping[str, Any]]) -> None:
    """Write one shard: complete or not there.

    path: of `shard_file`. kinds: of `features`. examples: its clips, in order.
    """
    with atomic.complete(path) as partial:
        writer = ArrayRecordWriter(str(partial), "group_size:1")  # single records are read, in any order
        for example in examples:
            writer.write(kinds.serialize_example(example))
        writer.close()


def finish(folder: Path, kinds: tfds.features.FeaturesDict, parts: Sequence[range]) -> None:
    """Make a data set of a `folder` that holds all its shards. kinds: of `features`. parts: of `shards`."""
    files = [shard_file(folder, number, len(parts)) for number in range(len(parts))]
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, split=dataset.SPLIT, filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name=dataset.SPLIT,
        shard_lengths=[len(part) for part in parts],
        num_bytes=sum(path.stat().st_size for path in files),
        filename_template=template,
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=kinds, split_infos=[split], filename_template=template, check_data=False
    )
    fingerprints.write(folder, dataset.SHARDS, *dataset.FILES)
