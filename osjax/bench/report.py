"""All that `osjax bench` measures, as plain values and as a table."""

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jaxlib
from jax.sharding import Mesh

import osjax
from osjax.bench import data, fit, measure
from osjax.bench.measure import Measured
from osjax.bench.works import Bench
from osjax.parallel.peak import published_peak
from osjax.parts.bench import BenchKeys
from osjax.types import Json


def measure_all(
    keys: BenchKeys, mesh: Mesh, names: tuple[str, ...], fitting: bool = False, trace: Path | None = None
) -> Json:
    """Every work by name; a report of plain values.

    keys: sizes and models. mesh: of all devices. names: of bench.keys.WORKS. fitting: as many blocks of the video model
    as the memory holds. trace: folder for XProf traces.
    """
    device, measured = jax.devices()[0], measure.matmul_tflops(keys.dtype)
    known = keys.peak_tflops or published_peak(device)
    peak = known or measured
    results: list[Measured] = []
    for name in names:
        if name == "data":
            results.append(data.measure(keys, mesh))
            continue
        bench = Bench.of(keys, mesh)
        if fitting and name in ("train", "denoise"):
            bench = replace(bench, blocks=_fitting(bench, name))
        work = bench.works[name]()
        results.append(measure.measure(work, keys.warmup, keys.repeats, peak * mesh.size, trace))
    return {
        "device": device.device_kind,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "processor": platform.processor() or platform.machine(),
        "versions": {"osjax": osjax.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__},
        "peak_tflops": peak,
        "peak_is": "given" if keys.peak_tflops else "published" if known else "measured",
        "matmul_tflops": measured,
        "matmul_dtype": keys.dtype,
        "config": json.loads(json.dumps(asdict(keys))),
        "results": [asdict(result) for result in results],
    }


def _fitting(bench: Bench, name: str) -> tuple[int, int]:
    def bytes_of(blocks: tuple[int, int]) -> int:
        return measure.program_bytes(replace(bench, blocks=blocks).works[name]().lower().compile())

    return fit.blocks(bytes_of, bench.blocks, fit.limit())


def table(report: Json) -> str:
    """The report in Markdown. report: what `measure_all` gives."""
    title = (
        f"{report['devices']} x {report['device']}, peak {report['peak_tflops']:.4g} TFLOP/s ({report['peak_is']}), "
        f"measured on a matrix product in {report['matmul_dtype']}: {report['matmul_tflops']:.4g}"
    )
    head = ("work", "size", "s, median", "per s", "tokens/s", "TFLOP/s", "MFU, %", "program, GiB", "compile, s")
    rows = [head, ("---", "---", *("--:",) * (len(head) - 2)), *(_row(result) for result in report["results"])]
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in rows)])


def _row(result: Json) -> tuple[str, ...]:
    percent = None if result["mfu"] is None else 100 * result["mfu"]
    gib = None if result["program_bytes"] is None else result["program_bytes"] / 2**30
    numbers = result["seconds"], result["per_s"], result["tokens_per_s"], result["tflops_per_s"], percent, gib
    return result["name"], result["size"], *map(_short, (*numbers, result["compile_s"]))


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
