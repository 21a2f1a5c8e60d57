"""`osjax plan`: what a training run needs and costs on accelerators that are not here."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from ml_collections import ConfigDict

from osjax import atomic
from osjax.errors import UserError
from osjax.pages import plan as plan_page
from osjax.parallel import mesh as device_mesh
from osjax.parts import run as runs
from osjax.planning import aot, published, search, targets
from osjax.planning.stage import plan, target_mesh


def add_options(parser) -> None:
    parser.add_argument("--target", required=True, help="such as v5p-128, v5p:4x4x8, v6e-256, h200x64")
    parser.add_argument("--stage", action="append", metavar="NAME", help="only these stages of a curriculum")
    parser.add_argument(
        "--mesh", metavar="D,F,S,T", help="sizes for all stages, instead of the config's; one may be -1"
    )
    parser.add_argument("--price", type=float, help="dollars of one device and hour")
    parser.add_argument("--mfu", type=float, help="utilisation to expect (default: what the original reached)")
    parser.add_argument("--no-compile", action="store_true", help="by arithmetic alone, in seconds")
    parser.add_argument(
        "--search", action="store_true", help="try meshes, rematerialisation and batches; print the best"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--html", metavar="FILE", help="write a page there")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there")
    parser.add_argument("--check", action="store_true", help="first hold this arithmetic against the published costs")


def run(cfg: ConfigDict, args) -> None:
    target = targets.parse(args.target)
    if args.price is not None:
        target = replace(target, chip=replace(target.chip, dollars=args.price))
    if args.mfu is not None and not 0 < args.mfu <= 1:
        raise UserError(f"--mfu {args.mfu} is no share: give one such as 0.45", status=2)
    if args.check:
        print(published.table(), end="\n\n")
    compiled = not args.no_compile and aot.available(target)
    checked = runs.of_config(cfg, target_mesh(target, compiled, _sizes(args.mesh)), ignored=("report",))
    planned = []
    for name, recipe in checked.diffusion(args.stage or ()).items():
        if args.search:
            print(search.table(search.best(recipe, target, args.mfu)), end="\n\n")
            continue
        print(f"{name}: {target.says}, {'compiling' if compiled else 'by arithmetic'}", flush=True)
        planned.append(plan(recipe, target, compiled, args.mfu))
        print(plan_page.stage_table(planned[-1]), end="\n\n", flush=True)
    if args.search:
        return
    whole = {"target": asdict(target), "devices": target.devices, "compiled": compiled, "stages": planned}
    if not compiled and not args.no_compile:
        extra = "plan" if target.chip.platform == "tpu" else "plan-gpu"
        print(f"The compiler for {target.says} is not installed (pip install 'osjax[{extra}]'): figures are estimates.")
    print(plan_page.total(planned))
    if args.json:
        atomic.write_text(args.json, json.dumps(whole, indent=2) + "\n")
    if args.html:
        plan_page.write(Path(args.html), whole)
    if args.markdown:
        atomic.write_text(args.markdown, plan_page.page(whole))


def _sizes(text: str | None) -> dict[str, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().lstrip("-").isdigit() for part in parts):
        raise UserError(f"--mesh {text!r} is not understood: give data,fsdp,sequence,tensor such as -1,8,1,1", status=2)
    return dict(zip(device_mesh.AXES, map(int, parts), strict=True))
