"""Weight files: what opens lazily, what is written, and what is refused."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from osjax.errors import UserError
from osjax.weights import io
from tests.weights.torch_files import write_zip

RNG = np.random.default_rng(1)
TENSORS = {
    "b.weight": RNG.standard_normal((5, 7)).astype(np.float32),
    "a.scale": RNG.standard_normal(9).astype(np.float32),
    "c": RNG.standard_normal((2, 3, 4)).astype(np.float32),
}


def same(got, want):
    assert got.keys() == want.keys()
    for name, value in want.items():
        tensor = np.asarray(got[name])
        assert (tensor.dtype, tensor.shape) == (value.dtype, value.shape)
        assert tensor.tobytes() == value.tobytes(), name


def described(tensors):
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def write_sharded(folder, suffix="safetensors", **shards):
    """shards: file stem -> tensors."""
    folder.mkdir(exist_ok=True)
    places = {}
    for stem, tensors in shards.items():
        path = folder / f"{stem}.{suffix}"
        save_file(tensors, path) if suffix == "safetensors" else write_zip(path, tensors)
        places |= dict.fromkeys(tensors, path.name)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def halves():
    return {"x": {"a.scale": TENSORS["a.scale"]}, "y": {n: TENSORS[n] for n in ("b.weight", "c")}}


def test_a_file_is_read_by_slices_and_says_its_shapes_before(tmp_path):
    save_file(TENSORS, tmp_path / "w.safetensors")
    got = io.open_tensors(tmp_path / "w.safetensors")
    same(got, TENSORS)
    assert got["c"].shape == (2, 3, 4) and got["c"].dtype == np.float32 and got["c"].nbytes == 96
    for index in ((), (slice(1, 2),), (slice(0, 2), slice(1, 3), slice(2, 4)), (slice(2, 1),), (1,), (slice(None), 2)):
        np.testing.assert_array_equal(got["c"][index], TENSORS["c"][index])
    (tmp_path / "w.safetensors").write_bytes(b"")  # whoever needs no value reads none
    with pytest.raises(UserError, match="ends too early"):
        got["c"][0:1]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_sharded_folder_opens_by_its_index_or_its_name(tmp_path, suffix):
    folder = write_sharded(tmp_path / "model", suffix, **halves())
    same(io.open_tensors(folder), TENSORS)
    same(io.open_tensors(next(folder.glob("*.index.json"))), TENSORS)


def test_a_folder_with_both_kinds_gives_the_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    write_zip(tmp_path / "pytorch_model.bin", {"a": np.ones(3, np.float32)})
    (tmp_path / "config.json").write_text("{}")
    same(io.open_tensors(tmp_path), TENSORS)


@pytest.mark.parametrize(
    "dtype",
    [np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.int64, np.bool_],
)
def test_every_dtype_survives_writing_and_reading(tmp_path, dtype):
    tensors = {"a": RNG.standard_normal((3, 4)).astype(dtype), "scalar": np.asarray(1).astype(dtype)}
    (path,) = io.save_tensors(tmp_path / "w.safetensors", described(tensors), tensors.__getitem__)
    same(io.open_tensors(path), tensors)


def test_a_written_file_is_the_library_s_byte_for_byte(tmp_path):
    mixed = {**TENSORS, "half": TENSORS["c"].astype(np.float16), "wide": np.ones(3), "é": np.ones(2, np.int32)}
    (path,) = io.save_tensors(tmp_path / "w.safetensors", described(mixed), mixed.__getitem__)
    assert path.read_bytes() == save(mixed, {"format": "pt"})
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_written_in_parts_that_its_index_names(tmp_path):
    files = io.save_tensors(tmp_path / "m", described(TENSORS), TENSORS.__getitem__, shard_bytes=180)
    assert [f.name for f in files] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * (35 + 9 + 24) and set(index["weight_map"]) == set(TENSORS)
    same(io.open_tensors(tmp_path / "m"), TENSORS)
    (one,) = io.save_tensors(tmp_path / "one", described(TENSORS), TENSORS.__getitem__)
    assert one.name == "model.safetensors" and len(list(one.parent.iterdir())) == 1


def header(content: object, data: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape=(2,), dtype="F32", offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "cut off"),
        (b"\0" * 7, "cut off"),
        (struct.pack("<Q", 2**63) + b"{}", "cut off"),
        (b"<html>not found</html>", "cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (header(b"{" * 5000), "no table"),
        (header(b"[" * 100_000), "no table"),
        (header([1]), "no table"),
        (header(b'{"a":{},"a":{}}'), "twice"),
        (header({"a": 3}), "damaged"),
        (header({"a": entry(shape=[-2])}, bytes(8)), "damaged"),
        (header({"a": entry(shape=[True, 2])}, bytes(8)), "damaged"),
        (header({"a": entry(shape=[1e300])}, bytes(8)), "damaged"),
        (header({"a": entry(shape=[2**70])}, bytes(8)), "damaged"),
        (header({"a": entry(shape=[2**61, 2**61])}, bytes(8)), "has 8 bytes"),
        (header({"a": entry(shape=[1] * 40)}, bytes(8)), "damaged"),
        (header({"a": entry(dtype="F4")}, bytes(8)), "of type 'F4'"),
        (header({"a": entry(dtype=["F32"])}, bytes(8)), "of type"),
        (header({"a": entry(offsets=(8, 0))}, bytes(8)), "has -8 bytes"),
        (header({"a": entry(offsets=(0, 4))}, bytes(8)), "has 4 bytes"),
        (header({"a": entry()}, bytes(7)), "is cut off: 7 of 8"),
        (header({"a": entry()}, bytes(9)), "belong to no tensor"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, content, says):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as error:
        io.open_tensors(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["../w.safetensors", "/etc/passwd", "sub/w.safetensors", "..", "", "a\\b", "a\0b"])
def test_an_index_never_leads_out_of_its_folder(tmp_path, name):
    save_file(TENSORS, tmp_path / "w.safetensors")
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    save_file(TENSORS, folder / "sub" / "w.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(TENSORS, name)}))
    with pytest.raises(UserError, match="does not lie beside it"):
        io.open_tensors(folder)


def test_a_folder_that_lacks_something_says_what(tmp_path):
    folder = write_sharded(tmp_path / "model", **halves())
    index = folder / "model.safetensors.index.json"
    good = index.read_text()
    cases = [
        ("{", "no index"),
        ('{"weight_map": [1]}', "no index"),
        ('{"weight_map": {"a": 1}}', "no index"),
        (good.replace('"c":', '"d":'), "names d, which is not in y.safetensors"),
        (good.replace("y.safetensors", "z.safetensors"), "z.safetensors is missing"),
    ]
    for content, says in cases:
        index.write_text(content)
        with pytest.raises(UserError, match=says):
            io.open_tensors(folder)
    index.unlink()
    with pytest.raises(UserError, match="holds 2 weight files .*name one"):
        io.open_tensors(folder)
    with pytest.raises(UserError, match="holds no .safetensors"):
        (tmp_path / "empty").mkdir()
        io.open_tensors(tmp_path / "empty")
    with pytest.raises(UserError, match="nowhere does not exist"):
        io.open_tensors(tmp_path / "nowhere")
    write_sharded(tmp_path / "twice", x=TENSORS, y=TENSORS)
    twice = tmp_path / "twice" / "model.safetensors.index.json"
    twice.write_text(json.dumps({"weight_map": {"a.scale": "x.safetensors", "c": "y.safetensors"}}))
    with pytest.raises(UserError, match="in two of its files"):
        io.open_tensors(tmp_path / "twice")


@settings(
    max_examples=150, deadline=2000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9), st.integers(0, 8)), min_size=1, max_size=6))
def test_any_damage_either_reads_or_is_one_clear_error(tmp_path, edits):
    content = save(TENSORS)
    for place, new, lost in edits:
        at = int(place * len(content))
        content = content[:at] + new + content[at + lost :]
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    try:
        assert all(np.asarray(t).nbytes <= len(content) for t in io.open_tensors(path).values())
    except UserError as error:
        assert "w.safetensors" in str(error) and len(str(error)) < 1000
