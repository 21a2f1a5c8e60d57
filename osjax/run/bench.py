"""`osjax bench`: how fast this machine runs each part of the system, against what it could do."""

import json
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.sharding import Mesh
from ml_collections import ConfigDict

import osjax
from osjax import atomic
from osjax.errors import UserError
from osjax.parallel import host
from osjax.parallel import mesh as device_mesh
from osjax.run import bench_data, bench_fit, bench_measure
from osjax.run.bench_measure import Measured
from osjax.run.bench_models import Bench

WORKS = ("train", "denoise", "train_autoencoder", "encode", "decode", "t5", "data")


def add_options(parser) -> None:
    parser.add_argument("work", nargs="*", help=f"of {', '.join(WORKS)} (default: config.work)")
    parser.add_argument("--blocks", help="of the video model: DOUBLE,SINGLE, or fit for as many as the memory holds")
    parser.add_argument("--repeats", type=int, help="timed calls (config.repeats)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--profile", metavar="FOLDER", help="write XProf traces of the timed calls there")
    parser.add_argument("--multihost", action="store_true", help="join the processes that the cluster has started")


def run(cfg: ConfigDict, args) -> None:
    names = tuple(args.work or cfg.work)
    for name in names:
        if name not in WORKS:
            raise UserError(f"unknown work {name!r}: use some of {', '.join(WORKS)}", status=2)
    if args.repeats is not None:
        cfg.repeats = args.repeats
    if cfg.repeats < 1 or cfg.warmup < 0:
        raise UserError(f"repeats {cfg.repeats} must be 1 or more, warmup {cfg.warmup} 0 or more", status=2)
    if args.multihost:
        device_mesh.initialize()
    host.keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)  # compile times of a cache would mean nothing
    mesh = device_mesh.make(**cfg.mesh)
    cfg.blocks = _blocks(args.blocks, cfg)
    trace = Path(args.profile) if args.profile else None
    report = measure_all(cfg, mesh, names, args.blocks == "fit", trace)
    if jax.process_index() == 0:
        print(table(report))
        if args.json:
            atomic.write_text(args.json, json.dumps(report, indent=2) + "\n")


def measure_all(
    cfg: ConfigDict, mesh: Mesh, names: tuple[str, ...], fit: bool = False, trace: Path | None = None
) -> dict[str, Any]:
    """Every work by name; a report of plain values. fit: as many blocks of the video model as the memory holds."""
    device, measured = jax.devices()[0], bench_measure.matmul_tflops(cfg.dtype)
    known = cfg.peak_tflops or bench_measure.published_peak(device)
    peak = known or measured
    results: list[Measured] = []
    for name in names:
        if name == "data":
            results.append(bench_data.measure(cfg, mesh))
            continue
        bench = Bench.of(cfg, mesh)
        if fit and name in ("train", "denoise"):
            bench = replace(bench, blocks=_fitting(bench, name))
        work = bench.works[name]()
        results.append(bench_measure.measure(work, cfg.warmup, cfg.repeats, peak * mesh.size, trace))
    return {
        "device": device.device_kind,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "processor": platform.processor() or platform.machine(),
        "versions": {"osjax": osjax.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__},
        "peak_tflops": peak,
        "peak_is": "given" if cfg.peak_tflops else "published" if known else "measured",
        "matmul_tflops": measured,
        "matmul_dtype": cfg.dtype,
        "config": json.loads(cfg.to_json_best_effort()),
        "results": [asdict(result) for result in results],
    }


def _blocks(text: str | None, cfg: ConfigDict) -> tuple[int, ...]:
    """(double, single) of the flag or the config; none: all of the model, or those that fit."""
    if text is None:
        blocks = tuple(cfg.blocks)
    elif text == "fit":
        return ()
    else:
        blocks = tuple(int(part) if part.strip().isdigit() else -1 for part in text.split(","))
    if blocks and (len(blocks) != 2 or min(blocks) < 0 or not any(blocks)):
        raise UserError(f"blocks {text or blocks} must be two counts, double and single, such as 2,4", status=2)
    return blocks


def _fitting(bench: Bench, name: str) -> tuple[int, int]:
    def bytes_of(blocks: tuple[int, int]) -> int:
        return bench_measure.program_bytes(replace(bench, blocks=blocks).works[name]().lower().compile())

    return bench_fit.blocks(bytes_of, bench.blocks, bench_fit.limit())


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    title = (
        f"{report['devices']} x {report['device']}, peak {report['peak_tflops']:.4g} TFLOP/s ({report['peak_is']}), "
        f"measured on a matrix product in {report['matmul_dtype']}: {report['matmul_tflops']:.4g}"
    )
    head = ("work", "size", "s, median", "per s", "tokens/s", "TFLOP/s", "MFU, %", "program, GiB", "compile, s")
    rows = [head, ("---", "---", *("--:",) * (len(head) - 2)), *(_row(result) for result in report["results"])]
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in rows)])


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    percent = None if result["mfu"] is None else 100 * result["mfu"]
    gib = None if result["program_bytes"] is None else result["program_bytes"] / 2**30
    numbers = result["seconds"], result["per_s"], result["tokens_per_s"], result["tflops_per_s"], percent, gib
    return result["name"], result["size"], *map(_short, (*numbers, result["compile_s"]))


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
