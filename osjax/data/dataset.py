"""TFDS data sets in ArrayRecord files, built and read without TensorFlow."""

import contextlib
import fnmatch
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from osjax import atomic
from osjax.data import card, fingerprints, index, remote, schema
from osjax.errors import UserError
from osjax.types import Row

log = logging.getLogger(__name__)
SPLIT = "train"
SHARDS = "*.array_record*"
FILES = (schema.FEATURES, schema.INFO, index.FILE)  # the others that have fingerprints
BYTES = tfds.features.Tensor(shape=(), dtype=np.object_)

CLIP_FEATURES = {
    "video": BYTES,  # the MP4 file as it is
    "text": tfds.features.Text(),
    "path": tfds.features.Text(),
    "num_frames": np.int32,
    "height": np.int32,
    "width": np.int32,
    "fps": np.float32,
}


class LocalInfo(tfds.core.DatasetInfo):
    """What TFDS says of a data set, without asking its own bucket for one of the same name."""

    def initialize_from_bucket(self) -> None:
        """Leave it as the code has it: TFDS would go to the network, and leave a folder among the temporary ones."""


class ClipsBuilder(tfds.core.GeneratorBasedBuilder):
    """A TFDS builder whose features and examples come from the caller. examples: gives (key, example) in order."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, features: Mapping[str, Any], examples: Callable[[], Iterable[tuple[str, Row]]], **kwargs):
        self._given_features, self._examples = features, examples
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(dict(self._given_features))
        # Shuffling is the loader's: records keep the table's order, so an index names a clip.
        return LocalInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self):
        yield from self._examples()


def write(folder: Path | str, features: Mapping[str, Any], examples: Callable[[], Iterable[Row]]) -> Path | str:
    """Write examples as a TFDS data set below `folder`; returns the folder to `open_source`. Complete or not there.

    folder: local or a URL. features: {name: TFDS feature}. examples: gives the records, dicts with those names.
    A data set that lies there already is replaced. A URL gets a copy of what is first written on this machine.
    """
    return _place(folder, lambda local: _write(local, features, examples))


def _place(folder: Path | str, make: Callable[[Path], Path]) -> Path | str:
    """What `make` wrote below a folder or, by way of a temporary one, below a URL."""
    if not remote.is_url(folder):
        with _whole(Path(folder)):
            return make(Path(folder))
    with tempfile.TemporaryDirectory() as local:
        with _whole(Path(local)):
            inside = make(Path(local)).relative_to(local)
        remote.upload_folder(Path(local), str(folder))
    return f"{str(folder).rstrip('/')}/{inside}"


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[None]:
    """A block that writes the data set of a folder: where it fails, what it made goes and what was there comes back.

    UserError for a full disk. TFDS takes away its own unfinished shards, and before it begins an older data set.
    """
    data, downloads = folder / ClipsBuilder.name / str(ClipsBuilder.VERSION), folder / "downloads"
    new = [p for p in (data.parent, downloads / "extracted", downloads, folder) if not p.exists()]
    aside = data.with_name(f".{data.name}.{os.getpid()}.before")
    if data.exists():
        log.warning("data set %s is replaced", data)
        data.rename(aside)
    try:
        yield
    except BaseException as error:
        shutil.rmtree(data, ignore_errors=True)  # without its index it would pass for one of older code
        if aside.exists():
            aside.rename(data)
        for made in new:
            with contextlib.suppress(OSError):  # not empty, or never made
                made.rmdir()
        if atomic.is_full_disk(error):
            raise UserError(f"no space is left for the data set in {folder}: make room and run it again") from error
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write(folder: Path, features: Mapping[str, Any], examples: Callable[[], Iterable[Row]]) -> Path:
    def keyed():
        yield from enumerate(examples())

    builder = ClipsBuilder(features=features, examples=keyed, data_dir=str(folder), file_format="array_record")
    # By default TFDS would keep an older data set in the folder and silently ignore the new examples.
    fresh = tfds.download.DownloadConfig(download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS, try_download_gcs=False)
    tfds.disable_progress_bar()  # it counts what our own bars count, in other words
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS speaks of downloads, of which there are none
            builder.download_and_prepare(download_config=fresh)
    except UserError:
        raise
    except Exception as error:  # TFDS wraps what the examples raise
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise
    fingerprints.write(Path(builder.data_path), SHARDS, *FILES)
    return Path(builder.data_path)


def build_clips(rows: Sequence[Row], folder: Path | str) -> Path | str:
    """Build a data set of MP4 files with captions; returns the folder or URL to open. It has an index and a card.

    rows: of a probed table (path, text, num_frames, height, width, fps). UserError without any. folder: local or a URL
    such as gs://bucket/clips; so may be the paths of the rows. Where all rows have a `motion` score, the records keep
    it for their captions.
    """
    scored = all(row.get("motion") not in (None, "") for row in rows)
    features = {**CLIP_FEATURES, **({"motion": np.float32} if scored else {})}

    def examples():
        for row in rows:
            if not isinstance(row["text"], str):  # TFDS would refuse it in a message with the bytes of the video
                raise UserError(f"the caption of {row['path']} is of type {type(row['text']).__name__}, not text")
            yield {
                "video": remote.read_bytes(row["path"]),
                "text": row["text"],
                "path": str(row["path"]),
                **{name: row[name] for name in ("num_frames", "height", "width", "fps")},
                **({"motion": float(row["motion"])} if scored else {}),
            }

    if not rows:
        raise UserError("no clip is left to build a data set from: look at the dropped clips' reasons")

    def make(local: Path) -> Path:
        made = _write(local, features, examples)
        index.write(made / index.FILE, [{name: [row[name] for row in rows] for name in index.ENTRY.names}])
        fingerprints.write(made, SHARDS, *FILES)
        card.write(made, rows, _identity(made))
        return made

    return _place(folder, make)


class Records(Sequence):
    """Random access to a data set's records: dicts of numpy values. A damaged shard is a UserError that names it.

    folder: of the data set, local. source: its records, as TFDS gives them. own: whether the run that reads them drew
    the clips itself, so that no file of theirs is foreign. What a data set says of itself does not count: whoever made
    it may have written that.
    """

    def __init__(self, folder: Path, source: Sequence[Row], own: bool = False):
        self.folder, self.own, self._source = folder, own, source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, at: int) -> Row:
        at = int(at)
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        try:
            return self._source[at % len(self)]
        except Exception as error:  # the reader's own kinds differ by version
            fingerprints.check(self.folder, made_anew=index.FILE)
            raise UserError(
                f"record {at} of {self.folder} cannot be read ({error}): build the data set anew"
            ) from error

    def identity(self) -> str:
        """A name for the contents: 16 hex digits, the same wherever the data set lies."""
        return _identity(self.folder)

    def index(self) -> np.ndarray:
        """num_frames, height, width and fps of every clip, mapped into memory (data/index.py)."""
        path = self.folder / index.FILE
        if path.is_file():
            try:
                fingerprints.check_file(self.folder, index.FILE)
                return self._of_all(index.open_index(path))
            except UserError as error:
                log.warning("%s; it is made anew from the records", error)
        columns = {name: [record[name] for record in self] for name in index.ENTRY.names}
        try:
            index.write(path, [columns])
        except (ValueError, OverflowError, TypeError) as error:
            raise UserError(f"records of {self.folder} state sizes that are none ({error}): build it anew") from error
        return self._of_all(index.open_index(path))

    def _of_all(self, entries: np.ndarray) -> np.ndarray:
        if len(entries) != len(self):
            raise UserError(f"{self.folder / index.FILE} is of {len(entries)} clips, the data set of {len(self)}")
        return entries


def _identity(folder: Path) -> str:
    shards = {name: about for name, about in fingerprints.read(folder).items() if fnmatch.fnmatch(name, SHARDS)}
    about = shards or [path.stat().st_size for path in sorted(folder.glob(SHARDS))]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def open_source(folder: Path | str, own: bool = False) -> Records:
    """The records of a data set that `write` made, on this machine or at a URL.

    own: see `Records`. UserError for a folder that holds none, and for shards that are missing or cut short.
    """
    folder = remote.local_folder(folder)
    if not (folder / "dataset_info.json").is_file():
        raise UserError(f"{folder} holds no data set: build it first")
    fingerprints.check_sizes(folder, made_anew=index.FILE)
    for name in (schema.FEATURES, schema.INFO):
        fingerprints.check_file(folder, name)
    schema.check(folder, SPLIT)
    try:
        return Records(folder, tfds.builder_from_directory(str(folder)).as_data_source(split=SPLIT), own)
    except Exception as error:  # the reader's own kinds differ by version
        raise UserError(f"{folder} holds no data set ({error}): build it first") from error
