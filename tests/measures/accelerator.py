"""What needs a GPU or a TPU, in at most eight minutes: attention against dense, train steps, denoising, decoding.

`python -m tests.measures.accelerator [--seconds=480] [--json=FILE] [--only=WORD]` prints a table for
docs/performance.md and writes its figures. The most important comes first; what fails is a row that says why, and what
no longer fits into the time is listed. `--compile-for=h200x1` (or v5p:2x2x1, ...) compiles every program for devices
that are not here instead; it needs `pip install 'osjax[plan-gpu]'` (for TPUs `osjax[plan]`).
"""

import argparse
import json
import math
import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from osjax.bench import fit as bench_fit
from osjax.bench import measure as bench_measure
from osjax.bench.measure import Work
from osjax.errors import UserError
from osjax.parallel.peak import published_peak
from osjax.planning import aot, targets
from tests.measures import accelerator_works
from tests.measures.accelerator_works import Piece

REPEATS = 3
USABLE = 0.92  # of a device's memory
SLACK = 1.5  # a kernel's error may be so many times dense attention's in the same dtype
COLUMNS = (
    "work",
    "size",
    "s",
    "TFLOP/s",
    "MFU, %",
    "of matmul, %",
    "planned, GiB",
    "program, GiB",
    "compile, s",
    "note",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=480, help="what no longer fits is skipped")
    parser.add_argument("--json", type=Path, default=Path("accelerator.json"))
    parser.add_argument("--only", default="", help="pieces whose name holds this")
    parser.add_argument("--compile-for", metavar="TARGET", help="compile for a target that is not here, run nothing")
    args = parser.parse_args()
    report = Report(args.json, args.seconds)
    if args.compile_for:
        jax.config.update("jax_platforms", "cpu")  # nothing runs, and the plugin of a GPU that is not here is quiet
        target = targets.parse(args.compile_for)
        devices, limit = aot.devices(target), USABLE * target.chip.hbm_gb * 1e9
        report.about = {"compiled_for": target.says}
        handle: Callable[[Piece, Report], None] = compile_piece
    else:
        jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp())  # what fits is compiled twice
        devices, limit = jax.devices(), bench_fit.limit()
        report.about = measured_machine(len(devices))
        handle = run_piece
    walk(accelerator_works.pieces(partial(accelerator_works.mesh_over, devices), limit), handle, report, args.only)
    report.write()
    print(report.table())


class Report:
    """Rows, written to a file as they come, so that nothing is lost when the time is over in the middle of one."""

    def __init__(self, path: Path, seconds: float):
        self.path, self.limit, self.started = path, seconds, time.monotonic()
        self.about: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []

    @property
    def left(self) -> float:
        return self.limit - (time.monotonic() - self.started)

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        self.write()
        print(f"[{time.monotonic() - self.started:4.0f} s]", " | ".join(cells(row)), flush=True)

    def write(self) -> None:
        figures = {**self.about, "seconds": time.monotonic() - self.started, "rows": self.rows}
        self.path.write_text(json.dumps(figures, indent=2) + "\n")

    def table(self) -> str:
        """In Markdown."""
        about = ", ".join(f"{name} {value}" for name, value in self.about.items())
        rows = [COLUMNS, ("---",) * len(COLUMNS), *map(cells, self.rows)]
        return "\n".join([about, "", *(f"| {' | '.join(row)} |" for row in rows)])


def walk(found, handle: Callable[[Piece, Report], None], report: Report, only: str = "") -> None:
    """Handle the pieces while there is time. An error is a row; one that hangs ends the process with what there is."""

    def cut_off():
        report.add(work="the rest", note=f"cut off after {report.limit:.0f} s")
        print(report.table(), flush=True)
        os._exit(1)

    timer = threading.Timer(max(report.left, 0) + 20, cut_off)
    timer.daemon = True
    timer.start()
    for piece in found:
        if only not in piece.name:
            continue
        if report.left < piece.expects:
            report.add(work=piece.name, note=f"skipped: {report.left:.0f} s left, takes about {piece.expects:.0f} s")
            continue
        try:
            handle(piece, report)
        except Exception as error:  # whatever it is, the other pieces still count
            traceback.print_exc()
            first = (str(error).strip().splitlines() or [""])[0]
            report.add(work=piece.name, note=f"{type(error).__name__}: {first[:200]}", failed=True)
        jax.clear_caches()
    timer.cancel()


def compile_piece(piece: Piece, report: Report) -> None:
    """Compile the programs of a piece for devices that are not here."""

    done: dict[str, aot.Compiled] = {}

    def compiled(work: Work) -> aot.Compiled:
        if said(work) not in done:
            done[said(work)] = aot.compile_program(work.lower(), piece.mesh)
        return done[said(work)]

    works = piece.compares() if piece.compares else piece.works(lambda work: bytes_of(lambda: compiled(work).peak))
    for work in works:
        found = compiled(work)
        planned = {"planned_bytes": piece.planned(work)} if piece.planned else {}
        report.add(work=piece.name, size=said(work), program_bytes=found.peak, compile_s=found.seconds, **planned)


def bytes_of(measure: Callable[[], float]) -> float:
    """What a program takes of a device; infinite where the compiler says that it does not fit."""
    try:
        return measure()
    except (UserError, jax.errors.JaxRuntimeError) as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "does not fit the device" in str(error):
            return math.inf
        raise


def run_piece(piece: Piece, report: Report) -> None:
    """Measure a piece on the devices that are here."""
    if piece.compares:
        compare(piece, report)
        return
    about, compile_s = report.about, {}

    def size(work: Work) -> float:
        started = time.monotonic()
        found = bytes_of(lambda: bench_measure.program_bytes(work.lower().compile()))
        compile_s[said(work)] = time.monotonic() - started  # the second time it comes from the cache
        return found

    for work in piece.works(size):
        found = bench_measure.measure(work, 1, REPEATS, about["peak_tflops"] * about["devices"])
        report.add(
            work=piece.name,
            size=said(work),
            seconds=found.seconds,
            tflops_per_s=found.tflops_per_s,
            mfu=found.mfu,
            of_matmul=found.tflops_per_s / about["devices"] / about["matmul_tflops"],
            program_bytes=found.program_bytes,
            peak_bytes=found.peak_bytes,
            compile_s=compile_s.get(said(work), found.compile_s),
            **({"planned_bytes": piece.planned(work)} if piece.planned else {}),
        )


def compare(piece: Piece, report: Report) -> None:
    """A kernel's result and gradients against dense attention in float32."""
    works = piece.compares()
    inputs = works[0].inputs()
    found = accelerator_works.errors(tuple(work.lower().compile() for work in works), inputs)
    good = all(found[f"error_{half}"] <= SLACK * found[f"dense_{half}"] for half in ("forward", "backward"))
    forward, backward = (
        f"{found[f'error_{half}']:.2g} (dense {found[f'dense_{half}']:.2g})" for half in ("forward", "backward")
    )
    note = f"{'equal' if good else 'DIFFERS'}: error {forward}, of gradients {backward}"
    report.add(work=piece.name, size=works[0].size, note=note, failed=not good, **found)


def measured_machine(count: int) -> dict[str, Any]:
    """The devices, and what they can do."""
    device, measured = jax.devices()[0], bench_measure.matmul_tflops("bfloat16")
    return {
        "device": device.device_kind,
        "devices": count,
        "jax": jax.__version__,
        "peak_tflops": published_peak(device) or measured,
        "matmul_tflops": measured,
    }


def said(work: Work) -> str:
    return f"{work.name}: {work.size}"


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One for each of COLUMNS."""

    def number(name: str, unit: float = 1.0) -> str:
        return f"{row[name] / unit:.3g}" if row.get(name) is not None else ""

    figures = (
        number("seconds"),
        number("tflops_per_s"),
        number("mfu", 0.01),
        number("of_matmul", 0.01),
        number("planned_bytes", 2**30),
        number("program_bytes", 2**30),
        number("compile_s"),
    )
    return row["work"], row.get("size", ""), *figures, row.get("note", "")


if __name__ == "__main__":
    main()
