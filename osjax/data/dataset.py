"""TFDS data sets in ArrayRecord files, built and read without TensorFlow."""

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from osjax.errors import UserError

log = logging.getLogger(__name__)
SPLIT = "train"
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


class ClipsBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder whose features and examples come from the caller."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, features: Mapping[str, Any], examples: Callable[[], Iterable[tuple[str, dict]]], **kwargs):
        self._given_features, self._examples = features, examples
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(dict(self._given_features))
        # Shuffling is the loader's: records keep the table's order, so an index names a clip.
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self):
        yield from self._examples()


def write(folder: Path, features: Mapping[str, Any], examples: Callable[[], Iterable[dict[str, Any]]]) -> Path:
    """Write examples as a TFDS data set below `folder`; returns the folder to `open_source`. Complete or not there.

    A data set that lies there already is replaced.
    """

    def keyed():
        yield from enumerate(examples())

    builder = ClipsBuilder(features=features, examples=keyed, data_dir=str(folder), file_format="array_record")
    if Path(builder.data_path).exists():
        log.warning("data set %s is replaced", builder.data_path)
    # By default TFDS would keep an older data set in the folder and silently ignore the new examples.
    fresh = tfds.download.DownloadConfig(download_mode=tfds.GenerateMode.REUSE_CACHE_IF_EXISTS)
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
    return Path(builder.data_path)


def build_clips(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Data set of MP4 files with captions, from probed table rows (path, text, num_frames, height, width, fps)."""

    def examples():
        for row in rows:
            yield {
                "video": _read_file(row["path"]),
                "text": row["text"],
                "path": str(row["path"]),
                **{name: row[name] for name in ("num_frames", "height", "width", "fps")},
            }

    if not rows:
        raise UserError("no clip is left to build a data set from: look at the dropped clips' reasons")
    return write(folder, CLIP_FEATURES, examples)


def _read_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"clip {path} cannot be read ({error.strerror}): probe the table again") from error


def open_source(folder: Path) -> Sequence[dict[str, Any]]:
    """Random-access view of a data set that `write` made: `len` and `[index] -> dict of numpy values`."""
    if not (Path(folder) / "dataset_info.json").is_file():
        raise UserError(f"{folder} holds no data set: build it first")
    try:
        return tfds.builder_from_directory(str(folder)).as_data_source(split=SPLIT)
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no data set ({error}): build it first") from error
