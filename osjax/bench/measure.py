"""Time compiled programs: warm-up, medians, memory, and utilisation against the device's peak."""

import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Work:
    """A program to measure.

    size: what it works on, in words. lower: gives the program, allocates nothing. inputs: gives its arguments.
    flops, tokens: of one call, over all devices. carries: its first output is the next call's first argument.
    """

    name: str
    size: str
    lower: Callable[[], jax.stages.Lowered]
    inputs: Callable[[], tuple]
    flops: int
    tokens: int
    carries: bool = False


@dataclass(frozen=True)
class Measured:
    """What was measured. seconds: median of a call. None: not known for this work or on this device.

    mfu: share of the peak, over all devices. program_bytes: arguments, outputs and temporaries on one device, by the
    compiler. peak_bytes: the most that this process has held on its first device until then.
    """

    name: str
    size: str
    seconds: float
    fastest: float
    slowest: float
    repeats: int
    per_s: float
    tokens_per_s: float | None = None
    tflops_per_s: float | None = None
    mfu: float | None = None
    flops: int | None = None
    compile_s: float | None = None
    program_bytes: int | None = None
    peak_bytes: int | None = None


def measure(work: Work, warmup: int, repeats: int, peak_tflops: float, trace: Path | None = None) -> Measured:
    """The times of a work's calls, compiled and warmed up first; each call is waited for and timed by itself.

    work: the program. warmup: calls before the timed ones, which are not counted. repeats: calls that are timed.
    peak_tflops: bfloat16 TFLOP/s of all devices together, for `mfu`. trace: folder for an XProf trace of the timed
    calls; None writes none.
    """
    started = time.perf_counter()
    program = work.lower().compile()
    compile_s = time.perf_counter() - started
    args = jax.block_until_ready(work.inputs())
    for _ in range(warmup):
        args = _call(program, args, work.carries)
    seconds = []
    with nullcontext() if trace is None else jax.profiler.trace(str(trace / work.name)):
        for _ in range(repeats):
            started = time.perf_counter()
            args = _call(program, args, work.carries)
            seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    tflops = work.flops / median / 1e12
    return Measured(
        work.name,
        work.size,
        seconds=median,
        fastest=min(seconds),
        slowest=max(seconds),
        repeats=repeats,
        per_s=1 / median,
        tokens_per_s=work.tokens / median,
        tflops_per_s=tflops,
        mfu=tflops / peak_tflops,
        flops=work.flops,
        compile_s=compile_s,
        program_bytes=program_bytes(program),
        peak_bytes=(jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    )


def _call(program: jax.stages.Compiled, args: tuple, carries: bool) -> tuple:
    out = jax.block_until_ready(program(*args))
    return (out[0], *args[1:]) if carries else args


def program_bytes(program: jax.stages.Compiled) -> int:
    """Bytes on one device while the program runs, by the compiler's analysis."""
    memory = program.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return total - memory.alias_size_in_bytes  # buffers that inputs and outputs share count once


def matmul_tflops(dtype: str, repeats: int = 5) -> float:
    """TFLOP/s of one device on a large square product of this dtype, the best of `repeats` calls."""
    n = 2048 if jax.default_backend() == "cpu" else 8192
    left, right = (jax.random.normal(key, (n, n)).astype(dtype) for key in jax.random.split(jax.random.key(0)))
    product = jax.jit(jnp.matmul).lower(left, right).compile()
    jax.block_until_ready(product(left, right))
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(product(left, right))
        seconds.append(time.perf_counter() - started)
    return 2 * n**3 / min(seconds) / 1e12
