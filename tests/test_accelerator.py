"""The script for accelerators: its programs, its budget, and that an error costs one row."""

import json
import math
from dataclasses import replace

import jax
import pytest

from osjax.errors import UserError
from osjax.ops.attention import attend
from osjax.planning import aot, targets
from tests.measures import accelerator, accelerator_works
from tests.measures.accelerator_works import Piece
from tests.parallel import processes


@pytest.fixture
def report(tmp_path):
    return accelerator.Report(tmp_path / "found.json", 60.0)


def mesh_of(**sizes):
    return accelerator_works.mesh_over(jax.devices()[:1], **sizes)


def piece(name, expects=1.0):
    return Piece(name, expects, mesh_of())


def test_an_error_is_a_row_and_what_does_not_fit_is_listed(report):
    def handle(piece, report):
        if piece.name == "fails":
            raise RuntimeError("no such kernel\nmore lines")
        report.add(work=piece.name)

    accelerator.walk([piece("fails"), piece("long", expects=61.0), piece("last")], handle, report)
    assert [row["work"] for row in report.rows] == ["fails", "long", "last"]
    notes = [row.get("note", "") for row in report.rows]
    assert notes[0] == "RuntimeError: no such kernel" and notes[1].startswith("skipped: ") and not notes[2]
    assert json.loads(report.path.read_text())["rows"] == report.rows
    assert [line.split(" | ")[0] for line in report.table().splitlines()[-3:]] == ["| fails", "| long", "| last"]


def all_devices(**sizes):
    return accelerator_works.mesh_over(jax.devices(), **sizes)


def test_the_important_comes_first_and_one_device_needs_no_more_than_eight_minutes():
    found = list(accelerator_works.pieces(mesh_of, 1e11))
    names = [piece.name for piece in found]
    assert names[0] == "flash against dense"
    assert names.index("train, stage 1, two blocks") < names.index("denoise, 256px")
    assert sum(piece.expects for piece in found) < 480
    assert not any("ring" in name or "ulysses" in name for name in names)  # one device has nobody to share with
    eight = [piece.name for piece in accelerator_works.pieces(all_devices, 1e11)]
    assert {"ring against dense", "ulysses against dense"} < set(eight)


@pytest.mark.parametrize("name, grid", [("blockwise", mesh_of), ("ring", all_devices)])
def test_a_kernel_is_equal_to_dense_attention_and_another_one_is_not(name, grid, report, monkeypatch):
    monkeypatch.setattr(accelerator_works, "SMALL", 128)  # tokens: to take seconds on a CPU
    monkeypatch.setitem(accelerator_works.KERNELS, "ring", "dense")  # which has no flash attention
    (found,) = [p for p in accelerator_works.pieces(grid, 1e11) if p.name == f"{name} against dense"]

    def forgetful():
        kernel, *dense = found.compares()
        first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        x = jax.ShapeDtypeStruct((1, 128, 24, 128), "bfloat16", sharding=first)

        def both(q, k, v, dout):
            out, pull = jax.vjp(lambda *qkv: attend(*qkv, impl="dense"), q, k, v)  # sees the padding
            return out, *pull(dout)

        return replace(kernel, lower=lambda: jax.jit(both).lower(x, x, x, x)), *dense

    accelerator.walk([found, replace(found, compares=forgetful)], accelerator.run_piece, report)
    assert [row["note"].split(":")[0] for row in report.rows] == ["equal", "DIFFERS"]


def test_a_program_that_does_not_fit_is_larger_than_any_limit_and_other_errors_stay_errors():
    def fails(words):
        def measure():
            raise UserError(words)

        return measure

    assert accelerator.bytes_of(lambda: 7) == 7
    assert accelerator.bytes_of(fails("does not fit the device: 200 GB")) == math.inf
    with pytest.raises(UserError, match="nonsense"):
        accelerator.bytes_of(fails("nonsense"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", ["h200x1", "v5p:2x2x1"])
def test_attention_compiles_for_accelerators_that_are_not_here(target, tmp_path):
    if not aot.available(targets.parse(target)):
        pytest.skip("needs the compilers of osjax[plan] and osjax[plan-gpu]")
    flags = [f"--compile-for={target}", f"--json={tmp_path / 'found.json'}", "--only=flash, 8960", "--seconds=800"]
    code = f"import sys; from tests.measures import accelerator; sys.argv[1:] = {flags}; accelerator.main()"
    done = processes.run_for_tpu(code)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["size"].split(":")[0] for row in rows] == ["flash, forward", "flash, forward and backward"]
    assert not any(row.get("failed") for row in rows) and rows[1]["program_bytes"] > 3e8
