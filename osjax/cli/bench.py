"""`osjax bench`: how fast this machine runs each part of the system, against what it could do."""

import json
from dataclasses import replace
from pathlib import Path

import jax
from ml_collections import ConfigDict

from osjax import atomic
from osjax.bench.report import measure_all, table
from osjax.errors import UserError
from osjax.parallel import host
from osjax.parallel import mesh as device_mesh
from osjax.parts.bench import WORKS, BenchKeys
from osjax.parts.groups import to_dataclass


def add_options(parser) -> None:
    parser.add_argument("work", nargs="*", help=f"of {', '.join(WORKS)} (default: config.work)")
    parser.add_argument("--blocks", help="of the video model: DOUBLE,SINGLE, or fit for as many as the memory holds")
    parser.add_argument("--repeats", type=int, help="timed calls (config.repeats)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--profile", metavar="FOLDER", help="write XProf traces of the timed calls there")
    parser.add_argument("--multihost", action="store_true", help="join the processes that the cluster has started")


def run(cfg: ConfigDict, args) -> None:
    if args.work:
        cfg.work = tuple(args.work)
    if args.repeats is not None:
        cfg.repeats = args.repeats
    keys = to_dataclass(BenchKeys, cfg, "")
    keys = replace(keys, blocks=_blocks(args.blocks, keys))
    if args.multihost:
        device_mesh.initialize()
    host.keep_freed_memory()
    jax.config.update("jax_enable_compilation_cache", False)  # compile times of a cache would mean nothing
    mesh = device_mesh.make(**vars(keys.mesh))
    trace = Path(args.profile) if args.profile else None
    report = measure_all(keys, mesh, keys.work, args.blocks == "fit", trace)
    if jax.process_index() == 0:
        print(table(report))
        if args.json:
            atomic.write_text(args.json, json.dumps(report, indent=2) + "\n")


def _blocks(text: str | None, keys: BenchKeys) -> tuple[int, ...]:
    """(double, single) of the flag or the config; none: all of the model, or those that fit."""
    if text is None:
        return tuple(keys.blocks)
    if text == "fit":
        return ()
    blocks = tuple(int(part) if part.strip().isdigit() else -1 for part in text.split(","))
    if len(blocks) != 2 or min(blocks) < 0 or not any(blocks):
        raise UserError(f"blocks {text} must be two counts, double and single, such as 2,4", status=2)
    return blocks
