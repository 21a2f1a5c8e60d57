"""What sampling needs of a device, from the compiler's own analysis of each program. Nothing is allocated or read."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from osjax.sampling.pipeline import Pipeline
from osjax.sampling.settings import SampleSettings

GIB = 2**30


@dataclass(frozen=True)
class Program:
    """Bytes on one device, and seconds to compile. weights: parameters; work: inputs, outputs and temporaries."""

    name: str
    weights: int
    work: int
    compiled_s: float

    @property
    def model(self) -> str:
        """What the weights belong to: t5, clip, denoise, or the autoencoder that encodes and decodes."""
        first = self.name.split()[0]
        return "autoencoder" if first in ("encode", "decode") else first

    @property
    def peak(self) -> int:
        """Bytes that the device must hold while the program runs."""
        return self.weights + self.work


def measure(pipe: Pipeline, settings: SampleSettings) -> list[Program]:
    """Every program that `pipe` runs for these settings, compiled for the devices here."""
    programs = []
    for name, weights, lower in pipe.programs(settings):
        started = time.perf_counter()
        memory = lower().compile().memory_analysis()
        seconds = time.perf_counter() - started
        # Buffers that inputs and outputs share count once.
        total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        programs.append(Program(name, weights, total - memory.alias_size_in_bytes - weights, seconds))
    return programs


def together(programs: Sequence[Program]) -> int:
    """Peak in bytes of running these programs with all weights on the device at once."""
    models = {program.model: program.weights for program in programs}
    return sum(models.values()) + max(program.work for program in programs)


def offloaded(programs: Sequence[Program]) -> int:
    """Peak in bytes of running these programs with one model on the device at a time."""
    return max(program.peak for program in programs)


def table(programs: Sequence[Program], title: str) -> str:
    """Markdown under this title: GiB and seconds of each of the programs, and the peaks with and without `offload`."""
    rows = [(p.name, _gib(p.weights), _gib(p.work), _gib(p.peak), f"{p.compiled_s:.1f}") for p in programs]
    rows.append(("**all weights on the device**", "", "", _gib(together(programs)), ""))
    rows.append(("**one model at a time (offload)**", "", "", _gib(offloaded(programs)), ""))
    head = ("program", "weights, GiB", "inputs, outputs and temporaries, GiB", "peak, GiB", "compile, s")
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---", "--:", "--:", "--:", "--:"), *rows)]
    return "\n".join([title, "", *lines])


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size >= GIB / 10 else f"{size / GIB:.4f}"
