"""What the JSON files of a data set may say, looked at before TFDS sees the folder.

TFDS imports whatever Python class `features.json` names. Here only those pass that osjax writes, in the form in which
it writes them, and shards lie in the folder itself.
"""

from pathlib import Path
from typing import Any

from osjax import json_file
from osjax.errors import UserError

FEATURES, INFO = "features.json", "dataset_info.json"
LARGEST = 1 << 20  # bytes of either file
TENSOR = "tensorflow_datasets.core.features.tensor_feature.Tensor"
TEXT = "tensorflow_datasets.core.features.text_feature.Text"
DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
DTYPES = {"string", "object", "float32", "float16", "bfloat16", "int32", "int64", "uint8"}
ENCODINGS = {"none", "bytes"}
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
TOLD = {"description", "citation", "downloadSize", "configName", "configDescription", "releaseNotes"}  # words alone


class _Wrong(ValueError):
    """What is not as osjax writes it."""


def check(folder: Path, split: str) -> None:
    """UserError, naming the file, where the data set of a folder is not such as osjax writes. split: its only one."""
    for name, examine in ((FEATURES, _features), (INFO, _info)):
        path = folder / name
        value = json_file.read(path, "build the data set anew", largest=LARGEST)
        try:
            examine(value, split)
        except ValueError as error:
            raise UserError(
                f"{path} is not such as `osjax data build` and `encode` write ({error}): build it anew"
            ) from error


def _features(value: Any, split: str) -> None:
    outer = _dict(value, {"featuresDict", "pythonClassName"})
    if outer.get("pythonClassName") != DICT:
        raise _Wrong(f"it names the class {outer.get('pythonClassName')!r}")
    listed = _dict(outer.get("featuresDict"), {"features"}).get("features")
    for name, feature in _dict(listed).items():
        kind = _dict(feature).get("pythonClassName")
        if kind not in (TENSOR, TEXT):
            raise _Wrong(f"{name} names the class {kind!r}")
        group = kind.rsplit(".", 1)[1].lower()
        content = _dict(_dict(feature, {"pythonClassName", group}).get(group))
        if kind == TEXT:
            _dict(content, set())
            continue
        if _dict(content, {"dtype", "encoding", "shape"}).get("dtype") not in DTYPES:
            raise _Wrong(f"{name} is of dtype {content.get('dtype')!r}")
        if content.get("encoding", "none") not in ENCODINGS:
            raise _Wrong(f"{name} has the encoding {content.get('encoding')!r}")
        sides = _dict(content.get("shape", {}), {"dimensions"}).get("dimensions", [])
        if not isinstance(sides, list) or len(sides) > 8:
            raise _Wrong(f"{name} has the shape {sides!r}")
        for side in sides:
            _whole(side, least=-1)


def _info(value: Any, split: str) -> None:
    known = {"disableShuffling", "fileFormat", "moduleName", "name", "splits", "version", *TOLD}
    info = _dict(value, known)
    for key in {*TOLD, "moduleName", "name", "version"} & info.keys() - {"releaseNotes"}:
        if not isinstance(info[key], str):
            raise _Wrong(f"{key} is no text")
    if info.get("fileFormat") != "array_record":
        raise _Wrong(f"fileFormat is {info.get('fileFormat')!r}")
    if not str(info.get("name", "")).isidentifier():
        raise _Wrong(f"name is {info.get('name')!r}")
    splits = info.get("splits")
    if not isinstance(splits, list) or len(splits) != 1:
        raise _Wrong(f"it has not the one split {split!r}")
    (only,) = splits
    _dict(only, {"filepathTemplate", "name", "numBytes", "shardLengths", "statistics"})
    if only.get("name") != split:
        raise _Wrong(f"its split is {only.get('name')!r}")
    if only.get("filepathTemplate", TEMPLATE) != TEMPLATE:
        raise _Wrong(f"its files are called {only.get('filepathTemplate')!r}")
    lengths = only.get("shardLengths")
    if not isinstance(lengths, list) or not lengths or sum(_whole(length, 0) for length in lengths) < 1:
        raise _Wrong("it says of no shard how many records it has")
    _whole(only.get("numBytes", "0"), 0)


def _dict(value: Any, keys: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong("a group is missing")
    if keys is not None and value.keys() - keys:
        raise _Wrong(f"it has {min(value.keys() - keys)!r}")
    return value


def _whole(value: Any, least: int) -> int:
    """A whole number, which protobuf's JSON writes as text."""
    if not isinstance(value, str) or not value.removeprefix("-").isdecimal() or len(value) > 18 or int(value) < least:
        raise _Wrong(f"{value!r} is no number")
    return int(value)
