"""Files of weights that are meant to harm, and what plain readers do with them."""

import json
import resource
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tensorstore as ts

from osjax.data import tokenize
from osjax.errors import UserError
from osjax.weights import adapters, io, lora_file, orbax_stream
from osjax.weights.leaves import of_params
from tests import tokenizer_files
from tests.weights import torch_files

ROOT = Path(__file__).parents[2]
TREE = {"a": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4)}, "b": np.ones(5, np.float32)}


def one_line(read, *args, within=10.0):
    """The line with which something is refused, in bounded time and with at most half a gigabyte more memory."""
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as error:
        read(*args)
    assert time.monotonic() - began < within
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB
    assert "\n" not in str(error.value)
    return str(error.value)


def safetensors_file(path, header, size):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * size)
    return path


def entry(begin, end):
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "places, words",
    [
        ([(0, 8), (0, 8)], "shares bytes"),
        ([(0, 8), (4, 12)], "shares bytes"),
        ([(0, 12), (4, 8)], "shares bytes"),
        ([(0, 4), (8, 12)], "4 bytes of no tensor"),
        ([(4, 8), (8, 12)], "4 bytes of no tensor"),
    ],
)
def test_tensors_that_share_bytes_or_leave_some_out_are_refused_as_the_library_does(places, words, tmp_path):
    header = {f"t{n}": entry(*place) for n, place in enumerate(places)}
    path = safetensors_file(tmp_path / "w.safetensors", header, max(end for _, end in places))
    assert words in one_line(io.open_tensors, path)
    with pytest.raises(safetensors.SafetensorError):
        safetensors.numpy.load_file(path)
    good = safetensors_file(tmp_path / "good.safetensors", {"b": entry(4, 12), "a": entry(0, 4), "e": entry(4, 4)}, 12)
    assert {name: t.shape for name, t in io.open_tensors(good).items()} == {"a": (4,), "b": (8,), "e": (0,)}


def test_a_header_of_a_hundred_megabytes_is_not_read(tmp_path):
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100_000_000) + b"{")
        file.truncate(100_000_008)
    assert "has a header of 100000000 bytes" in one_line(io.open_tensors, path, within=1.0)


def test_headers_and_indexes_that_are_nested_without_end_are_refused(tmp_path):
    deep = b'{"a":' * 200_000
    assert "w.safetensors" in one_line(io.open_tensors, safetensors_file(tmp_path / "w.safetensors", deep, 0))
    (tmp_path / "model.safetensors.index.json").write_bytes(deep)
    assert "nested too deeply" in one_line(io.open_tensors, tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_members_that_pytorch_does_not_pack_are_refused(method, tmp_path):
    """An LZMA member states the memory that its reader takes: up to 4 GiB."""
    torch_files.write_zip(tmp_path / "w.pt", {"w": np.arange(6, dtype=np.float32)})
    assert io.open_tensors(tmp_path / "w.pt")["w"].shape == (6,)
    with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "packed.pt", "w", method) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), compress_type=method)
    assert "packed as PyTorch does not" in one_line(io.open_tensors, tmp_path / "packed.pt")


@pytest.fixture
def item(tmp_path):
    """The parameters in a checkpoint that is not sealed."""
    orbax_stream.save(tmp_path / "made", of_params(TREE), {})
    shutil.rmtree(tmp_path / "made.seals")
    return orbax_stream.find(tmp_path / "made")


def restate(item, **stated):
    """Change what the checkpoint states of one array."""
    store = ts.KvStore.open({"driver": "ocdbt", "base": {"driver": "file", "path": f"{item}/"}}).result()
    store[b"a.kernel/.zarray"] = json.dumps({**json.loads(store[b"a.kernel/.zarray"]), **stated})


READ = """
import resource, sys
from pathlib import Path
import tensorstore as ts
resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
base = {"driver": "file", "path": sys.argv[1] + "/"}
store = ts.open({"driver": "zarr", "kvstore": {"driver": "ocdbt", "base": base, "path": "a.kernel"}}).result()
store[:1].read().result()
"""


@pytest.mark.parametrize("chunks", [[2**40, 4], [2**20, 2**14], [3, 5]])
def test_chunks_larger_than_their_array_are_refused_before_they_are_allocated(chunks, item):
    assert orbax_stream.open_leaves(item).read(("a", "kernel"), (slice(0, 3), slice(0, 4))).sum() == 66
    restate(item, chunks=chunks)
    assert "is in chunks of" in one_line(orbax_stream.open_leaves, item)
    if chunks[0] > 3:  # the control: TensorStore itself ends the process
        done = subprocess.run([sys.executable, "-c", READ, str(item)], capture_output=True, text=True, timeout=60)
        assert done.returncode < 0 and "bad_alloc" in done.stderr


@pytest.mark.parametrize("chunks", [[0, 4], [-1, 4], [2**62, 4], [3], "x", None])
def test_chunks_that_are_none_are_one_line(chunks, item):
    restate(item, chunks=chunks)
    one_line(orbax_stream.open_leaves, item)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"tree_metadata": 3}', '{"tree_metadata": {"a": 1}}', '{"a":' * 100_000]
)
def test_metadata_of_a_checkpoint_that_is_none_is_one_line(text, item):
    (item / "_METADATA").write_text(text)
    if text != '{"tree_metadata": 3}':
        assert str(item) in one_line(orbax_stream.open_leaves, item)


@pytest.mark.parametrize("alpha", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_an_alpha_that_is_no_number_is_refused_wherever_it_stands(alpha, tmp_path):
    config = tmp_path / "0" / "config"
    config.mkdir(parents=True)
    (config / "metadata").write_text(f'{{"lora": {{"rank": 4, "alpha": {alpha}, "targets": ["qkv"]}}}}')
    (tmp_path / "0" / "params").mkdir()
    for name in ("_METADATA", "manifest.ocdbt"):
        (tmp_path / "0" / "params" / name).touch()
    assert "alpha" in one_line(adapters.read, tmp_path, None)
    text = f'{{"rank": 4, "alpha": {alpha}, "targets": ["qkv"]}}'
    assert "alpha" in one_line(lora_file._own, tmp_path / "w.safetensors", text)
    assert lora_file._own(tmp_path, text.replace(alpha, "2.0")).alpha == 2.0


@pytest.fixture
def tokenizer(tmp_path):
    """A folder with a sound tokenizer, and its JSON."""
    tokenizer_files.write_t5(tmp_path)
    return tmp_path, json.loads((tmp_path / "tokenizer.json").read_text())


def hostile(tokenizer, change):
    folder, content = tokenizer
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_a_tokenizer_that_takes_minutes_or_gigabytes_for_a_sentence_is_refused_in_seconds(tokenizer, monkeypatch):
    """By a regular expression that tries all ways to split a run of letters, and by letters that become many."""
    assert tokenize.t5(tokenizer[0])(["a red bus"]).shape == (1, tokenize.T5_LENGTH)
    monkeypatch.setattr(tokenize, "TRIAL_S", 3)
    slow = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
    many = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
    for normalizer in (slow, {"type": "Sequence", "normalizers": [many] * 6}):
        folder = hostile(tokenizer, lambda content, one=normalizer: content.update(normalizer=one))
        words = one_line(tokenize.t5, folder, within=20.0)
        assert "is not a tokenizer" in words


def test_a_tokenizer_that_hangs_on_a_text_which_the_trial_did_not_have_is_stopped_and_started_again(
    tokenizer, monkeypatch
):
    slow = {"type": "Replace", "pattern": {"Regex": "7+z"}, "content": ""}
    made = tokenize.t5(hostile(tokenizer, lambda content: content.update(normalizer=slow)))
    before = made(["a red bus"])
    monkeypatch.setattr(tokenize, "TEXTS_S", 2.0)
    for call in (lambda text: made([text]), made.cut):
        assert "ran past its deadline" in one_line(call, "7" * 200_000, within=20.0)
    monkeypatch.setattr(tokenize, "TEXTS_S", 30.0)
    assert np.array_equal(made(["a red bus"]), before)


def test_a_tokenizer_whose_native_code_panics_is_one_line(tokenizer):
    folder, content = tokenizer
    for change in (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}},
        {"model": {"type": "Unigram", "unk_id": 10**9, "vocab": [["a", 0.0]], "byte_fallback": True}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Removed", "invert": False}},
        {"model": {"type": "evil.Model"}},
    ):
        (folder / "tokenizer.json").write_text(json.dumps({**content, **change}))
        assert "tokenizer.json is not a tokenizer" in one_line(tokenize.t5, folder), change
    for text in ("", "[]", '{"a":' * 100_000):
        (folder / "tokenizer.json").write_text(text)
        assert "tokenizer.json is not a tokenizer" in one_line(tokenize.t5, folder)
