"""How cost grows: seconds and bytes against tokens, batch, depth, rows and bytes, each with its exponent.

`python -m tests.measures.growth [CURVE...] [--small] [--json=FILE]` prints a table of every curve of CURVES, or of
those named. Seconds are of the processor, all threads together, so that a shared machine does not matter much; the
exponent is the slope of a line through the logarithms of the upper half of the sizes, and at the end stands what it
may be at most. Exit status 1 where one is above that.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from osjax import models
from osjax.data import buckets, index, schedule
from osjax.parallel import mesh as meshes
from osjax.parallel import sharding
from osjax.training import checkpoint, diffusion, optimizer
from osjax.training import state as states
from osjax.types import LatentBatch
from tests.measures.index_memory import RULES, columns, memory
from tests.training import tiny

TEXT = 8  # tokens
TIMES = 3  # the fastest counts


@dataclass(frozen=True)
class Curve:
    """What is measured at each of the sizes.

    of: gives a value by name for a size. most: the largest exponent by that name; why: what it comes from.
    sizes, small: rising; the small ones are for a first look and for tests.
    """

    of: Callable[[int], dict[str, float]]
    unit: str
    sizes: Sequence[int]
    small: Sequence[int]
    most: dict[str, float]
    why: dict[str, str] = field(default_factory=dict)


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Slope of the logarithms of the upper half of the points, at least two of them."""
    upper = slice(min(len(sizes) // 2, len(sizes) - 2), None)
    return float(np.polyfit(np.log(sizes[upper]), np.log(np.maximum(values[upper], 1e-9)), 1)[0])


def seconds(call: Callable[[], Any]) -> float:
    """Processor seconds of one call, the fastest of TIMES."""
    taken = []
    for _ in range(TIMES):
        began = time.process_time()
        jax.block_until_ready(call())
        taken.append(time.process_time() - began)
    return min(taken)


def train_step(tokens: int = 256, rows: int = 1, depth: int = 2) -> dict[str, float]:
    """A train step of a narrow MMDiT: seconds to trace, to compile and to run, bytes that it works in.

    tokens: of a video, a multiple of 64. depth: double blocks, and as many single ones.
    """
    cfg = replace(
        tiny.CONFIG,
        hidden_size=128,
        num_heads=2,
        depth=depth,
        depth_single_blocks=depth,
        axes_dim=(16, 24, 24),
        remat="full",
        attention="blockwise",
    )
    mesh, tx, module = meshes.make(devices=jax.devices()[:1]), optimizer.make(tiny.ADAM), models.build(cfg)
    fresh = sharding.Init(lambda: states.create(lambda: models.init_params(cfg, jax.random.key(0)), tx, True), mesh)
    state, key = fresh.make(), sharding.random_key(0, mesh)
    draw = np.random.default_rng(0).standard_normal
    latents, text, vector, cond = (
        jnp.asarray(draw((rows, *shape)), jnp.float32)
        for shape in ((tokens // 64, 16, 16, 4), (TEXT, 20), (12,), (tokens // 64, 16, 16, 5))
    )
    batch = LatentBatch(latents, text, vector, cond)
    step = sharding.jit_step(diffusion.make_step(module, tx, tiny.ADAM), fresh.shardings, mesh)
    marks = [time.process_time()]
    lowered = step.lower(state, batch, key)
    marks.append(time.process_time())
    program = lowered.compile()
    marks.append(time.process_time())

    def run() -> Any:
        nonlocal state
        state, told = program(state, batch, key)
        return told["loss"]

    taken = seconds(run)
    used = program.memory_analysis()
    held = used.temp_size_in_bytes + used.argument_size_in_bytes
    jax.clear_caches()
    return {"step": taken, "bytes": float(held), "trace": marks[1] - marks[0], "compile": marks[2] - marks[1]}


def clips(count: int) -> dict[str, float]:
    """An index of so many clips: seconds to write it, to plan and for a step's clips, bytes that a loader holds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / index.FILE
        gc.collect()
        before, marks = memory()["RssAnon"], [time.process_time()]
        index.write(path, columns(count))
        marks.append(time.process_time())
        table = buckets.Buckets(RULES, 16, 24)
        grouped = index.group(index.open_index(path), table, 0)
        plan = schedule.Plan(grouped.members, {b: table.batch_size(b) for b in grouped.possible}, 0)
        marks.append(time.process_time())
        steps = np.random.default_rng(0).integers(plan.pass_of(0).batches, size=200)
        for step in steps:
            plan.indices(int(step))
        taken = (time.process_time() - marks[-1]) / len(steps)
        held = max(memory()["RssAnon"] - before, 1.0)
    return {"write": marks[1] - marks[0], "plan": marks[2] - marks[1], "step": taken, "bytes": held}


def saved(megabytes: int) -> dict[str, float]:
    """A checkpoint of so many megabytes: seconds to save and seal it, and to open and restore it."""
    mesh, tx = meshes.make(devices=jax.devices()[:1]), optimizer.make(tiny.ADAM)
    width = 500_000  # a row of parameters, its average and two moments are 8 MB
    rows = max(1, megabytes // 8)

    def init() -> states.TrainState:
        return states.create(lambda: {"kernel": jnp.ones((rows, width))}, tx, with_ema=True)

    fresh = sharding.Init(init, mesh)
    state = fresh.make()
    with tempfile.TemporaryDirectory() as folder:
        store = checkpoint.Checkpoints(Path(folder) / "checkpoints")
        began = time.process_time()
        store.save(1, state, None, {})
        store.wait()
        written = time.process_time()
        store.close()
        again = checkpoint.Checkpoints(Path(folder) / "checkpoints")
        opened = time.process_time()
        jax.block_until_ready(again.restore(checkpoint.abstract_like(state, fresh.shardings))[0])
        restored = time.process_time()
        again.close()
    return {"save": written - began, "open": restored - opened}


CURVES = {
    "tokens": Curve(
        lambda n: train_step(tokens=n),
        "tokens of a video",
        (1024, 2048, 4096, 8192),
        (128, 256, 512),
        {"step": 2.0, "bytes": 1.1, "trace": 0.2, "compile": 0.2},
        {
            "step": "attention's products are the tokens' square, all others the tokens",
            "bytes": "queries in blocks",
        },
    ),
    "batch": Curve(
        lambda n: train_step(rows=n), "videos", (1, 2, 4, 8), (1, 2, 4), {"step": 1.1, "bytes": 1.1, "compile": 0.2}
    ),
    "depth": Curve(
        lambda n: train_step(depth=n),
        "double blocks, and single ones",
        (2, 4, 8, 16),
        (1, 2, 4),
        {"step": 1.1, "bytes": 1.1, "trace": 0.2, "compile": 0.2},
        {"compile": "blocks are one scanned program", "trace": "blocks are traced once"},
    ),
    "rows": Curve(
        clips,
        "clips of a data set",
        (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
        (1_000, 4_000, 16_000),
        {"write": 1.1, "plan": 1.1, "step": 0.2, "bytes": 1.1},
        {"step": "a permutation is computed at the places of a batch alone"},
    ),
    "bytes": Curve(saved, "megabytes of state", (64, 128, 256, 512, 1024), (8, 16, 32), {"save": 1.1, "open": 1.1}),
}


def measured(curve: Curve, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Values by name, in the order of the sizes."""
    curve.of(sizes[0])  # what is imported and compiled for any size
    points = [curve.of(size) for size in sizes]
    return {name: [point[name] for point in points] for name in curve.most}


def table(name: str, curve: Curve, sizes: Sequence[int], values: dict[str, list[float]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield f"| {name}: {curve.unit} | {' | '.join(f'{size:,}' for size in sizes)} | exponent | at most | why |"
    yield f"|---|{'---:|' * (len(sizes) + 2)}---|"
    for what, row in values.items():
        shown = (f"{value / 1e6:.1f} MB" if what == "bytes" else f"{value:.3g} s" for value in row)
        got, most = exponent(sizes, row), curve.most[what]
        yield f"| {what} | {' | '.join(shown)} | {got:.2f} | {most} | {curve.why.get(what, '')} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("curves", nargs="*", default=list(CURVES), metavar="CURVE")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    if unknown := set(args.curves) - set(CURVES):
        parser.error(f"no such curve: {', '.join(sorted(unknown))}; there are {', '.join(CURVES)}")
    told, above = {}, []
    for name in args.curves:
        curve = CURVES[name]
        sizes = curve.small if args.small else curve.sizes
        values = measured(curve, sizes)
        told[name] = {"sizes": list(sizes), **values}
        print("\n".join(table(name, curve, sizes, values)), end="\n\n", flush=True)
        above += [f"{name}, {what}" for what, most in curve.most.items() if exponent(sizes, values[what]) > most]
    if args.json:
        args.json.write_text(json.dumps(told, indent=1))
    if above:
        print(f"above what it may be: {'; '.join(above)}", file=sys.stderr)
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
