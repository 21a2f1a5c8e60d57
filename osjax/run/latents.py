"""Autoencoder latents on disk: encoded once, then read instead of videos, in the very order of the videos."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from osjax.data import bucketed, buckets, cache, dataset, loader
from osjax.data.schedule import Plan
from osjax.errors import UserError
from osjax.run.train_data import Source
from osjax.sampling.autoencoder import Autoencoder

log = logging.getLogger(__name__)
AT_ONCE = 16  # clips through the autoencoder
SAME = 1e-2  # largest difference of a latent that may come from another machine; another autoencoder's is far larger


@dataclass(frozen=True)
class Latents:
    """plan: of the videos. records: of each bucket, in the order of its members."""

    plan: Plan
    records: Mapping[buckets.Bucket, Source]

    def batches(self, threads: int) -> loader.BatchIterator:
        """Endless batches {latents, head, tail, text} of this process: those that the videos would have come in."""
        readers = {bucket: loader.read_features(records) for bucket, records in self.records.items()}
        places = {b: {index: n for n, index in enumerate(members)} for b, members in self.plan.members.items()}

        def read(bucket: buckets.Bucket, index: int, rng: np.random.Generator) -> dict[str, Any]:
            return readers[bucket](places[bucket][index], rng)

        where = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        return bucketed.planned(self.plan, read, threads=threads, **where)


def cached(
    source: Source, plan: Plan, table: buckets.Buckets, autoencoder: Autoencoder, folder: Path, fps_max: float
) -> Latents:
    """The latents of every clip of the plan and of its end frames, from its first frame on; made when not there yet.

    UserError where the folder's latents are of another autoencoder.
    """
    if jax.process_count() > 1:
        raise UserError("data.cached encodes on one process only: set it to False, or train on one process first")
    records = {}
    for bucket, members in plan.members.items():
        reader = loader.ClipReader(source, *table.shape(bucket), fps_max=fps_max)
        records[bucket] = _of_bucket(reader, members, autoencoder, folder / "x".join(map(str, table.shape(bucket))))
    return Latents(plan, records)


def _of_bucket(reader: loader.ClipReader, members: list[int], autoencoder: Autoencoder, folder: Path) -> Source:
    done = folder / "done.json"  # written last
    if done.exists():
        found = json.loads(done.read_text())
        records = dataset.open_source(folder / found["data_set"])
        first = next(_encoded(reader, members[:1], autoencoder))
        if found["members"] != len(members) or np.abs(first["latents"] - records[0]["latents"]).max() > SAME:
            raise UserError(f"{folder} holds latents of other clips or of another autoencoder: delete it")
        return records
    shape = autoencoder.latent_shape(reader.num_frames, *reader.size)
    path = cache.write_features(folder, shape, lambda: _encoded(reader, members, autoencoder, f"encode {folder.name}"))
    done.write_text(json.dumps({"members": len(members), "data_set": str(path.relative_to(folder))}))
    return dataset.open_source(path)


def _encoded(
    reader: loader.ClipReader, members: list[int], autoencoder: Autoencoder, label: str | None = None
) -> Iterator[dict[str, Any]]:
    starts = range(0, len(members), AT_ONCE)
    for start in tqdm(starts, desc=label, unit="batch", mininterval=1, disable=label is None):
        examples = [reader(i) for i in members[start : start + AT_ONCE]]
        videos = np.stack([e["video"] for e in examples])
        # Every batch has the same shape, so that there is one program.
        full = np.concatenate([videos, np.repeat(videos[-1:], AT_ONCE - len(videos), 0)])
        found = [np.asarray(autoencoder.encode(x)) for x in (full, full[:, :1], full[:, -1:])]
        for latents, head, tail, example in zip(*found, examples, strict=False):
            yield {"latents": latents, "head": head, "tail": tail, "text": example["text"]}
