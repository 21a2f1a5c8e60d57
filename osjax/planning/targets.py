"""Accelerators that a run may be planned for: what a chip can do, and names such as v5p:4x4x8, v6e-256, h200x64.

Figures are the vendors' published ones; prices are defaults to replace by those of a contract.
"""

import math
import re
from dataclasses import dataclass

from osjax.errors import UserError


@dataclass(frozen=True)
class Chip:
    """What one chip, or one GPU, can do.

    tflops: dense bfloat16, 1e12 a second. hbm_gb, hbm_gbps: memory and its speed, 1e9 bytes and those a second.
    link_gbps: that a chip can send to others of its slice or host, all links together; network_gbps: beyond. dollars:
    of an hour on demand.
    """

    name: str
    platform: str
    tflops: float
    hbm_gb: float
    hbm_gbps: float
    link_gbps: float
    network_gbps: float
    dollars: float
    dimensions: int = 0  # of a TPU slice
    cores: int = 1  # that a name such as v5p-128 counts, per chip


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "tpu", 197.0, 17.2, 819.0, 200.0, 6.0, 1.20, dimensions=2),
        Chip("v5p", "tpu", 459.0, 102.0, 2765.0, 600.0, 12.5, 4.20, dimensions=3, cores=2),
        Chip("v6e", "tpu", 918.0, 34.3, 1640.0, 448.0, 12.5, 2.70, dimensions=2),
        Chip("h100", "cuda", 989.4, 80.0, 3350.0, 450.0, 50.0, 2.00),
        Chip("h200", "cuda", 989.4, 141.0, 4800.0, 450.0, 50.0, 2.00),
        Chip("b200", "cuda", 2250.0, 180.0, 8000.0, 900.0, 50.0, 4.00),
    )
}
PER_HOST = 8  # GPUs
TPUS_PER_HOST = 4  # of slices with more than one host


@dataclass(frozen=True)
class Target:
    """Chips that a run is planned for. shape: sides of a TPU slice, such as (4, 4, 8), or (hosts, GPUs of each)."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def devices(self) -> int:
        return math.prod(self.shape)

    @property
    def host_devices(self) -> int:
        """Number of devices that one host has."""
        return self.shape[1] if self.chip.platform == "cuda" else min(self.devices, TPUS_PER_HOST)

    @property
    def topology(self) -> str:
        """The name that the compiler knows these devices by, such as v5p:4x4x8."""
        if self.chip.platform == "cuda":
            return f"1x{self.shape[0]}x{self.shape[1]}"
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def says(self) -> str:
        if self.chip.platform == "cuda":
            return f"{self.devices} {self.chip.name.upper()} ({self.shape[0]} x {self.shape[1]})"
        return f"{self.devices} TPU {self.chip.name} ({'x'.join(map(str, self.shape))})"

    def sends(self, devices: int) -> float:
        """Bytes a second that one device sends within a group of so many neighbours, with all links in use."""
        inside = self.chip.platform == "tpu" or devices <= self.shape[1]
        return 1e9 * (self.chip.link_gbps if inside else self.chip.network_gbps)


def parse(name: str) -> Target:
    """The target of a name: v5p:4x4x8 (chips of a slice), v5p-256 (as clouds name slices) or h200x64.

    UserError for what is none of them.
    """
    if parts := re.fullmatch(r"(\w+?):(\d+(?:x\d+)*)", name):
        chip, shape = _chip(parts[1], "tpu", name), tuple(int(n) for n in parts[2].split("x"))
        if len(shape) != chip.dimensions or min(shape) < 1:
            raise UserError(f"target {name}: {chip.name} slices have {chip.dimensions} sides, such as {_example(chip)}")
        return Target(chip, shape)
    if parts := re.fullmatch(r"(\w+?)-(\d+)", name):
        chip = _chip(parts[1], "tpu", name)
        count, rest = divmod(int(parts[2]), chip.cores)
        if rest or not count or count & (count - 1):
            raise UserError(f"target {name} is no slice: give its shape, such as {_example(chip)}")
        return Target(chip, _even(count, chip.dimensions))
    if parts := re.fullmatch(r"([a-z]+\d+)x(\d+)", name):
        chip, count = _chip(parts[1], "cuda", name), int(parts[2])
        if not count or (count > PER_HOST and count % PER_HOST):
            raise UserError(f"target {name}: GPUs come in hosts of {PER_HOST}, such as {chip.name}x{2 * PER_HOST}")
        inside = min(count, PER_HOST)
        return Target(chip, (count // inside, inside))
    raise UserError(f"target {name!r} is not understood: give one like v5p:4x4x8, v6e-256 or h200x64", status=2)


def _chip(name: str, platform: str, target: str) -> Chip:
    known = [chip.name for chip in CHIPS.values() if chip.platform == platform]
    if name not in known:
        raise UserError(f"target {target}: unknown accelerator {name!r}: use one of {', '.join(known)}", status=2)
    return CHIPS[name]


def _example(chip: Chip) -> str:
    return f"{chip.name}:{'x'.join(('4',) * chip.dimensions)}"


def _even(count: int, dimensions: int) -> tuple[int, ...]:
    """A power of two as sides that are as even as they can be, smallest first."""
    power = count.bit_length() - 1
    return tuple(2 ** ((power + i) // dimensions) for i in range(dimensions))
