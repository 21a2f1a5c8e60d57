"""PyTorch checkpoints: what is read, and that nothing in them is ever executed."""

import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osjax.errors import UserError
from osjax.weights.io import open_tensors
from tests.weights.torch_files import Pickler, Strided, write_entries, write_old, write_zip

RNG = np.random.default_rng(0)
STATE = OrderedDict(
    {
        "a.weight": RNG.standard_normal((4, 6)).astype(np.float32),
        "a.bias": RNG.standard_normal(6).astype(ml_dtypes.bfloat16),
        "b": RNG.standard_normal((2, 3, 5)).astype(np.float16),
        "steps": np.asarray(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
)


def same(tensors, state):
    assert tensors.keys() == state.keys()
    for name, value in state.items():
        got = np.asarray(tensors[name])
        assert (got.dtype, got.shape) == (value.dtype, value.shape) == (tensors[name].dtype, tensors[name].shape)
        assert got.tobytes() == value.tobytes(), name


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": dict(s)}])
@pytest.mark.parametrize("write", [write_zip, write_old])
def test_state_dicts_are_read_bare_and_wrapped_in_both_formats(tmp_path, write, wrap):
    same(open_tensors(write(tmp_path / "w.pt", wrap(STATE))), STATE)


@pytest.mark.parametrize("kind", ["_rebuild_tensor", "_rebuild_parameter", "_rebuild_tensor_v3"])
def test_tensors_of_older_and_newer_kinds_are_read(tmp_path, kind):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    pickler = Pickler()
    pickler.tensor(value.reshape(-1), 0, (2, 3), (3, 1))
    body = pickler.out[2:]
    if kind == "_rebuild_tensor":  # without whether it learns and its hooks
        body = body.replace(b"_rebuild_tensor_v2", kind.encode()).replace(b"\x89ccollections\nOrderedDict\n)RtR", b"tR")
    elif kind == "_rebuild_parameter":
        body = b"ctorch._utils\n_rebuild_parameter\n(" + body + b"\x88ccollections\nOrderedDict\n)RtR"
    else:  # of an untyped storage: the dtype comes last
        value = np.arange(6).reshape(2, 3).astype(ml_dtypes.float8_e4m3fn)
        body = body.replace(b"_rebuild_tensor_v2", kind.encode()).replace(b"ctorch\nFloat", b"ctorch.storage\nUntyped")
        body = body.removesuffix(b"tR") + b"ctorch\nfloat8_e4m3fn\ntR"
    path = write_entries(tmp_path / "w.pt", b"\x80\x02}X\x01\0\0\0a" + body + b"s.", [value])
    same(open_tensors(path), {"a": value})


def test_slices_of_a_tensor_are_read_alone(tmp_path):
    tensor = open_tensors(write_zip(tmp_path / "w.bin", STATE))["b"]
    np.testing.assert_array_equal(tensor[1:2, :, 2:4], STATE["b"][1:2, :, 2:4])
    np.testing.assert_array_equal(tensor[1], STATE["b"][1])


def test_views_and_transposed_tensors_are_read_by_their_strides(tmp_path):
    base = np.arange(24, dtype=np.float32)
    state = {"transposed": Strided(base, 0, (6, 4), (1, 6)), "part": Strided(base, 6, (2, 3), (6, 1))}
    tensors = open_tensors(write_zip(tmp_path / "w.pth", state))
    np.testing.assert_array_equal(np.asarray(tensors["transposed"]), base.reshape(4, 6).T)
    np.testing.assert_array_equal(tensors["transposed"][2:4, 1:], base.reshape(4, 6).T[2:4, 1:])
    np.testing.assert_array_equal(np.asarray(tensors["part"]), base.reshape(4, 6)[1:3, :3])


def test_compressed_archives_are_read_but_bombs_are_not(tmp_path):
    same(open_tensors(write_zip(tmp_path / "w.pt", STATE, zipfile.ZIP_DEFLATED)), STATE)
    bomb = {"a": np.zeros(2**23, np.float32)}
    with pytest.raises(UserError, match="zip bomb"):
        open_tensors(write_zip(tmp_path / "bomb.pt", bomb, zipfile.ZIP_DEFLATED))
    long = write_entries(tmp_path / "long.pt", b"\x80\x02" + b"N" * 2**25, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="more than any weights need"):
        open_tensors(long)


class Attack:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    "value, named",
    [
        (Attack(os.system, "touch {}"), "posix.system"),
        (Attack(eval, "open('{}', 'w')"), "__builtin__.eval|builtins.eval"),
        (Attack(getattr, os, "system"), "getattr|cannot pickle"),
        (Attack(open, "{}", "w"), "open"),
        ({"state_dict": {"a": Attack(exec, "open('{}', 'w')")}}, "exec"),
        ([Attack(__import__, "antigravity")], "__import__"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_something_is_refused_by_name(tmp_path, value, named, protocol, zipped):
    victim = tmp_path / "victim"

    def aimed(x):
        if isinstance(x, Attack):
            return Attack(x.function, *(a.format(victim) if isinstance(a, str) else a for a in x.arguments))
        if isinstance(x, dict):
            return {k: aimed(v) for k, v in x.items()}
        return [aimed(v) for v in x]

    try:
        content = pickle.dumps(aimed(value), protocol=protocol)
    except TypeError:  # modules do not pickle: write what an attacker would
        content = b"c__builtin__\ngetattr\n(cposix\nsystem\nX\x01\0\0\0atR."
    path = tmp_path / "evil.pt"
    path.write_bytes(content) if not zipped else write_entries(path, content)
    with pytest.raises(UserError, match=f"asks to run .*({named})") as error:
        open_tensors(path)
    assert not victim.exists() and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"\x80\x02cargparse\nNamespace\n)R.", "argparse.Namespace"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n)R.", "__globals__"),
        (b"\x80\x02ctorch\nload\nX\x01\0\0\0a\x85R.", "torch.load"),
        (b"\x80\x02ctorch.serialization\nload\n)\x81.", "torch.serialization.load"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"\x80\x02ccollections\nOrderedDict\n", "damaged"),
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02X\x01\0\0\0aPx\n.", "PERSID"),
        (b"\x80\x02}(]K\x01u.", "key of type list"),
        (b"\x80\x02" + b"(" * 5 + b".", "damaged"),
        (b"\x80\x02]0h\x05.", "damaged"),
        (b"\x80\x02\x8b\x40\0\0\0" + b"\x7f" * 64 + b".", "64 bits"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.", "damaged"),
        (b"\x80\x02K\x01.", "holds a int"),
        (b"\x80\x02}q\0X\x05\0\0\0modelq\x01h\0s.", "no tensors by name"),
    ],
)
def test_other_opcodes_and_nonsense_are_refused(tmp_path, content, says):
    with pytest.raises(UserError, match=says):
        open_tensors(write_entries(tmp_path / "w.pt", content))


def tensor_pickle(length=24, offset=0, shape=(4, 6), strides=(6, 1), key="0"):
    pickler = Pickler()
    pickler.tensor(np.zeros(length, np.float32), offset, shape, strides)
    content = pickler.out[2:].replace(b"X\x01\0\0\0000", b"X" + struct.pack("<I", len(key)) + key.encode())
    return b"\x80\x02}X\x01\0\0\0a" + content + b"s."


@pytest.mark.parametrize(
    "lie",
    [
        {"shape": (5, 6)},
        {"offset": 1},
        {"offset": -1},
        {"strides": (7, 1)},
        {"strides": (6, -1)},
        {"shape": (2**30, 2**30), "strides": (0, 0)},
        {"shape": (24,)},
        {"key": "1"},
        {"key": "../../../etc/passwd"},
        {"key": "/etc/passwd"},
        {"length": 25},
        {"length": 2**40},
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, lie):
    storage = [np.arange(24, dtype=np.float32)]
    sound = open_tensors(write_entries(tmp_path / "good.pt", tensor_pickle(), storage))["a"]
    assert np.asarray(sound)[3, 5] == 23
    if lie.get("length") == 2**40:  # more than memory: only the number is written
        content = tensor_pickle(length=1).replace(b"K\x01tQ", b"\x8a\x06" + struct.pack("<Q", 2**40)[:6] + b"tQ")
    else:
        content = tensor_pickle(**lie)
    with pytest.raises(UserError, match="not read|damaged"):
        open_tensors(write_entries(tmp_path / "lie.pt", content, storage))


def test_archives_that_are_not_torch_s_are_refused(tmp_path):
    good = tensor_pickle()
    with pytest.raises(UserError, match="big-endian"):
        open_tensors(write_entries(tmp_path / "big.pt", good, byteorder=b"big"))
    with pytest.raises(UserError, match="2 data.pkl"):
        open_tensors(write_entries(tmp_path / "two.pt", good, **{"b/data.pkl": good}))
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "twice.pt", "w") as archive:
        archive.writestr("a/data.pkl", good)
        archive.writestr("a/data.pkl", good)
    with pytest.raises(UserError, match="two entries of one name"):
        open_tensors(tmp_path / "twice.pt")
    with zipfile.ZipFile(tmp_path / "none.pt", "w") as archive:
        archive.writestr("a.txt", b"")
    with pytest.raises(UserError, match="0 data.pkl"):
        open_tensors(tmp_path / "none.pt")


@pytest.mark.parametrize("cut", [1, 30, 200, 0.5, 0.95])
@pytest.mark.parametrize("write", [write_zip, write_old])
def test_a_checkpoint_that_is_cut_off_is_refused(tmp_path, write, cut):
    path = write(tmp_path / "w.pt", {"a": np.ones((40, 40), np.float32), "b": np.ones(4, np.float32)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut) if cut < 1 else cut])
    with pytest.raises(UserError, match="w.pt"):
        open_tensors(path)


FILES = {write: write.__name__ for write in (write_zip, write_old)}


@pytest.mark.parametrize("write", FILES, ids=FILES.values())
@settings(
    max_examples=100, deadline=2000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9), st.integers(0, 8)), min_size=1, max_size=6),
    inside=st.booleans(),
)
def test_any_damage_either_reads_or_is_one_clear_error(tmp_path, write, edits, inside):
    """Bytes replaced, added and lost anywhere, or (inside) in the pickle of an archive that is sound."""

    def damage(content):
        for place, new, lost in edits:
            at = int(place * len(content))
            content = content[:at] + new + content[at + lost :]
        return content

    path = tmp_path / "w.pt"
    if inside and write is write_zip:
        pickler = Pickler()
        write_entries(path, damage(pickler.dump(STATE)), pickler.storages)
    else:
        path.write_bytes(damage(write(path, STATE).read_bytes()))
    began = time.monotonic()
    try:
        for tensor in open_tensors(path).values():
            assert np.asarray(tensor).nbytes <= 2**20  # never more than the file could hold
    except UserError as error:
        assert "w.pt" in str(error) and len(str(error)) < 1000
    assert time.monotonic() - began < 2


@settings(max_examples=200, deadline=2000, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_as_a_pickle_are_a_value_or_refused(content):
    from io import BytesIO

    from osjax.weights.torch_pickle import Refused, interpret

    try:
        interpret(BytesIO(content))
    except Refused as error:
        assert str(error)
