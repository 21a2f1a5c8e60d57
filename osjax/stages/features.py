"""Features of a stage's clips on disk: encoded once on the mesh, then read instead of videos, in their very order.

For each bucket there is a TFDS data set, in a folder whose name says its shape and what it was made from, so features
of other clips, another autoencoder or other condition modes are never mistaken for these.
"""

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import grain
import jax
import numpy as np
import tensorflow_datasets as tfds
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from osjax import atomic, json_file
from osjax.data import bucketed, buckets, cache, dataset, loader, schedule
from osjax.errors import UserError
from osjax.parallel import exchange, host
from osjax.types import Json, Row

log = logging.getLogger(__name__)
SHARD = 256  # clips of a file, about
THREADS = bucketed.Readers()
ABOUT, NULL = "about.json", "null.npz"


class Encode(Protocol):
    """What features are made with. states_dtype: holds the text states without loss."""

    states_dtype: str

    def to_cache(self, video_BTHWC: jax.Array) -> dict[str, jax.Array]:
        """A global batch of videos -> `latents`, and those of condition frames and clips by their names."""

    def cached_shapes(self, shape: tuple[int, int, int]) -> dict[str, tuple[int, int, int, int]]:
        """Shapes of what `to_cache` makes of one clip (frames, height, width)."""

    def encode_text(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts -> states (B, M, C) and pooled vectors (B, C), on the host."""


@dataclass(frozen=True)
class Clips:
    """The clips of a stage, as its batches take them. plan: a settled one, as what is on disk holds a clip once.

    encoders: fingerprints of what encodes them by `autoencoder` and, where text features are kept as well, `text`.
    shapes: `Encode.cached_shapes`. state_fps, state_motion, exact: see `loader.Window`.
    """

    source: dataset.Records
    plan: schedule.Plan
    table: buckets.Buckets
    encoders: Mapping[str, str]
    shapes: Callable[[tuple[int, int, int]], dict[str, tuple[int, int, int, int]]]
    state_fps: bool = False
    state_motion: bool = False
    exact: bool = False

    @property
    def members(self) -> schedule.Members:
        """Indices of each bucket's clips."""
        return self.plan.pass_of(0).members

    @property
    def has_text(self) -> bool:
        return "text" in self.encoders

    def about(self, bucket: buckets.Bucket) -> Json:
        """What the features of a bucket are made from."""
        members = np.ascontiguousarray(self.members[bucket], np.int64)
        shape = self.table.shape(bucket)
        return {
            "shape": "x".join(map(str, shape)),
            "data set": self.source.identity(),
            "clips": hashlib.sha256(members.tobytes()).hexdigest()[:16],
            "fps_max": self.table.fps_max,
            "features": sorted(self.shapes(shape)),
            **self.encoders,
            # Absent from older features, whose pixels were exact.
            **({} if self.exact else {"pixels": "uint8"}),
            **({"state_fps": True} if self.state_fps else {}),
            **({"state_motion": True} if self.state_motion else {}),
        }

    def kinds(self, bucket: buckets.Bucket) -> tfds.features.FeaturesDict:
        """The TFDS features of a bucket's examples."""
        return cache.features(self.shapes(self.table.shape(bucket)), self.has_text)


@dataclass(frozen=True)
class Features:
    """The features of a stage's clips on disk.

    plan: of the videos, whose order these keep. records: of each bucket, in the order of its members. states: dtype and
    shape of the text states, which records hold as bytes; None where text is encoded while training. null: text
    features of "", (states, pooled vector).
    """

    plan: schedule.Plan
    records: Mapping[buckets.Bucket, dataset.Records]
    states: Mapping[str, Any] | None
    null: tuple[np.ndarray, np.ndarray] | None

    def batches(self, readers: bucketed.Readers) -> grain.DatasetIterator:
        """Endless batches of this process: those of the videos. readers: how many threads, how far ahead."""
        # Members rise, so a clip's place is found without a table of them all.
        members = {bucket: np.asarray(self.plan.pass_of(0).members[bucket]) for bucket in self.records}

        def read(batch: schedule.Batch, index: int, rng: np.random.Generator) -> Row:
            record = dict(self.records[batch.bucket][int(np.searchsorted(members[batch.bucket], index))])
            record["text"] = record["text"].decode()
            if self.states:
                states = np.frombuffer(record["txt"], self.states["dtype"]).reshape(self.states["shape"])
                record["txt"] = states.astype(np.float32)
            return record

        where = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        row_bytes = {bucket: _bytes(records[0]) for bucket, records in self.records.items()}
        ahead = readers.ahead(row_bytes, self.plan, jax.process_count())
        return bucketed.planned(self.plan, read, threads=readers.threads, ahead=ahead, **where)


def _bytes(record: Mapping[str, Any]) -> int:
    return sum(len(value) if isinstance(value, bytes) else np.asarray(value).nbytes for value in record.values())


def find(root: Path, clips: Clips) -> Features:
    """The features of all clips of a plan below `root`. UserError that says in what those that are there differ."""
    records = {}
    for bucket in clips.members:
        folder = _folder(root, clips.about(bucket))
        if _about(folder) is None:
            raise UserError(f"{root} holds no features of these clips{_nearest(root, clips.about(bucket))}")
        records[bucket] = dataset.open_source(folder)
    states, null = None, None
    if clips.has_text:
        try:
            states = _about(folder)["states"]
            with np.load(folder / NULL, allow_pickle=False) as file:
                null = file["txt"].view(states["dtype"]).astype(np.float32), file["vec"]
        except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{folder} is damaged ({error}): delete it and run `osjax encode` again") from error
    return Features(clips.plan, records, states, null)


def make(
    root: Path,
    clips: Clips,
    encode: Encode,
    mesh: Mesh,
    readers: bucketed.Readers = THREADS,
    shard: int = SHARD,
) -> Features:
    """The features of all clips of a plan, made where they are not there yet.

    All processes make them together, shard by shard, so a run that is killed goes on where it stood.
    root: a folder that all processes see. encode: what makes them, on the mesh. readers: who decodes videos on each
    host. shard: clips of a file, about.
    """
    exchange.check_shared(root, "name one that all hosts see, by data.features")
    workers = readers.of(clips.source)
    for bucket, members in clips.members.items():
        about = clips.about(bucket)
        folder, size = _folder(root, about), clips.table.batch_size(bucket)
        if _agreed(_about(folder) is not None):
            continue
        shape = clips.table.shape(bucket)
        window = loader.Window(
            *shape,
            fps_max=clips.table.fps_max,
            exact=clips.exact,
            state_fps=clips.state_fps,
            state_motion=clips.state_motion,
        )
        reader = partial(loader.ClipReader(clips.source, window, workers), members=members)
        work = _Work(reader, members, encode, mesh, readers.count, size // jax.process_count(), clips.has_text)
        parts = cache.shards(len(members), size * max(1, shard // size))
        _make_shards(folder, parts, clips.kinds(bucket), work)
        multihost_utils.sync_global_devices(f"features {folder.name}")
        if jax.process_index() == 0:
            states = _write_null(folder, encode) if clips.has_text else None
            cache.finish(folder, clips.kinds(bucket), parts)
            atomic.write_text(folder / ABOUT, json.dumps({**about, "states": states}, indent=1))  # written last
        multihost_utils.sync_global_devices(f"finished {folder.name}")
    return find(root, clips)


@dataclass(frozen=True)
class _Work:
    """How shards are filled. rows: clips that a process encodes at a time."""

    reader: Callable[[int], Row]
    members: Sequence[int]
    encode: Encode
    mesh: Mesh
    threads: int
    rows: int
    text: bool

    def examples(self, part: range, steps: int) -> Iterator[Row]:
        """The examples of the places `part`, encoded.

        All processes take the same number of steps, because they encode together: where clips run out the last one goes
        along.
        """
        last = part.stop - 1
        clips = [int(self.members[min(at, last)]) for at in range(part.start, part.start + steps * self.rows)]
        options = grain.ReadOptions(num_threads=self.threads, prefetch_buffer_size=2 * self.rows)
        ahead = iter(grain.MapDataset.source(clips).map(self.reader).to_iter_dataset(options))
        for start in range(0, steps * self.rows, self.rows):
            examples = [next(ahead) for _ in range(self.rows)]
            video = host.pixels_to_global(np.stack([e["video"] for e in examples]), self.mesh)
            encoded = self.encode.to_cache(video)
            here = {name: _rows_here(x, self.mesh) for name, x in encoded.items()}
            if self.text:
                txt, vec = self.encode.encode_text([e["text"] for e in examples])
                here |= {"txt": _as_bytes(txt, self.encode.states_dtype), "vec": vec}
            for n, example in enumerate(examples[: max(0, len(part) - start)]):
                row = {name: values[n] for name, values in here.items()}
                yield {**row, "text": example["text"], "index": example["index"]}


def _make_shards(folder: Path, parts: Sequence[range], kinds: Any, work: _Work) -> None:
    """Make this process's shard of every round, a round being as many missing shards as there are processes."""
    count, index = jax.process_count(), jax.process_index()
    missing = [not cache.shard_file(folder, n, len(parts)).is_file() for n in range(len(parts))]
    left = np.flatnonzero(_agreed(missing)).tolist()
    rounds = range(0, len(left), count)
    for start in tqdm(rounds, desc=f"encode {folder.name}", unit="round", mininterval=1, disable=index > 0):
        now = left[start : start + count]
        steps = max(-(-len(parts[n]) // work.rows) for n in now)
        if index < len(now):
            path = cache.shard_file(folder, now[index], len(parts))
            cache.write_shard(path, kinds, work.examples(parts[now[index]], steps))
        else:  # goes along
            for _ in work.examples(parts[now[-1]], steps):
                pass


def _agreed(value: Any) -> Any:
    """What process 0 sees: a shared folder may show others something else for a while."""
    return np.asarray(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _rows_here(x: jax.Array, mesh: Mesh) -> np.ndarray:
    """This process's rows of an array over the mesh."""
    pieces = {s.index[0].start or 0: s.data for s in host.to_global(x, mesh).addressable_shards}
    return np.concatenate([np.asarray(pieces[start], np.float32) for start in sorted(pieces)])


def _as_bytes(states_BMC: np.ndarray, dtype: str) -> list[bytes]:
    return [row.astype(dtype).tobytes() for row in states_BMC]


def _write_null(folder: Path, encode: Encode) -> Json:
    """Text features of the empty text; the shape and dtype of all text states."""
    txt, vec = encode.encode_text([""])
    states = txt.astype(encode.states_dtype)
    with atomic.complete(folder / NULL) as partial, partial.open("wb") as file:
        np.savez(file, txt=states.view(np.uint8), vec=vec)
    return {"dtype": encode.states_dtype, "shape": txt.shape[1:]}


def _about(folder: Path) -> dict[str, Any] | None:
    """What the features of a folder are made from; None where it has none, or a damaged file that is made again."""
    if not (folder / ABOUT).is_file():
        return None
    try:
        return json_file.read(folder / ABOUT, "it is made again", ("shape", "states"))
    except UserError as error:
        log.warning("%s", error)
        return None


def _folder(root: Path, about: Mapping[str, Any]) -> Path:
    made_from = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    return root / f"{about['shape']}-{made_from}"


def _nearest(root: Path, about: Mapping[str, Any]) -> str:
    """In what the features below `root` differ from those that are wanted, as the end of a sentence."""
    there = [_about(path.parent) for path in sorted(root.glob(f"{about['shape']}-*/{ABOUT}"))]
    others = [other for other in there if other is not None]
    if not others:
        return f" in {about['shape']} (frames x height x width): run `osjax encode` with this config"
    for other in others:
        del other["states"]
    differ = min(([name for name in {**about, **o} if o.get(name) != about.get(name)] for o in others), key=len)
    return f": those in {about['shape']} are of another {', '.join(differ)}; run `osjax encode` with this config"
