"""Collectives of a compiled program, read from its text: kind, mesh axes, how often, bytes on the wire.

The compiler's own analysis leaves them out and sees the body of a scan once; here a body counts as often as it runs.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
WIDTHS |= {"s64": 8, "u64": 8, "f8e4m3fn": 1, "f8e5m2": 1}

_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=(?:\{([^}]*)\}|%?([\w.\-]+))")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True)
class Collective:
    """All collectives of one kind over the same mesh axes. bytes: that a device sends in one step, all of them."""

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: int


@dataclass
class _Computation:
    lines: list[str]
    entry: bool


def collectives(text: str, mesh: Mesh) -> list[Collective]:
    """The collectives of a program, those that send most first.

    text: optimised HLO, as `compiled.as_text()` gives it. mesh: that the program was compiled for.
    """
    computations = _split(text)
    counts: Counter = Counter()
    sizes: Counter = Counter()
    for name, times in _times(computations).items():
        scatters = "all-reduce-scatter" in name  # how TPUs write a reduce-scatter: an all-reduce that keeps one part
        for kind, size, group in _of_lines(computations[name].lines, mesh.size):
            kind = "reduce-scatter" if scatters and kind == "all-reduce" else kind
            ways = len(group)
            if ways < 2 and kind != "collective-permute":
                continue
            key = kind, _axes(group, mesh)
            counts[key] += times
            sizes[key] += times * _sent(kind, size, ways)
    sent = [Collective(kind, axes, counts[kind, axes], sizes[kind, axes]) for kind, axes in counts]
    return sorted(sent, key=lambda c: -c.bytes)


def _split(text: str) -> dict[str, _Computation]:
    computations: dict[str, _Computation] = {}
    current: _Computation | None = None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = computations[head[2]] = _Computation([], bool(head[1]))
        elif current is not None:
            current.lines.append(line)
    return computations


def _times(computations: dict[str, _Computation]) -> Counter:
    """How often each computation runs in one call of the program."""
    times: Counter = Counter()

    def visit(name: str, factor: int) -> None:
        times[name] += factor
        for line in computations[name].lines:
            called = [part.strip(" %") for pair in _CALLED.findall(line) for part in "".join(pair).split(",")]
            inner = factor
            if " while(" in line:
                inner = factor * _trips(line, computations)
            for callee in called:
                if callee in computations:
                    visit(callee, inner)

    for name, computation in computations.items():
        if computation.entry:
            visit(name, 1)
    return times


def _trips(line: str, computations: dict[str, _Computation]) -> int:
    """Turns of a while loop that a scan became: said outright, or the bound that its condition compares with."""
    if known := _TRIPS.search(line):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    lines = computations[condition[1]].lines if condition else ()
    bounds = [int(n) for text in lines for n in re.findall(r"s32\[\]\S* constant\((\d+)\)", text)]
    return max(bounds, default=1)


def _of_lines(lines: list[str], devices: int) -> Iterator[tuple[str, int, np.ndarray]]:
    """(kind, bytes of the whole array, devices of the first group)."""
    for line in lines:
        operation = _OPERATION.match(line)
        if not operation:
            continue
        result, name, rest = operation.groups()
        kind = name.removesuffix("-start")
        if kind not in KINDS:
            continue
        shapes = [_bytes(*shape) for shape in _SHAPE.findall(result)]
        group = _group(rest, devices)
        ways, size = len(group), sum(shapes)
        if name.endswith("-start") and kind != "all-reduce":
            # The result of a started operation holds its operands too: parts beside whole arrays, or equals.
            parts = kind in ("all-gather", "reduce-scatter")
            size = round(size * ways / (ways + 1)) if parts else max(shapes)
        elif kind == "reduce-scatter":
            size *= ways  # its result is one part
        yield kind, size, group


def _bytes(dtype: str, sizes: str) -> int:
    return WIDTHS.get(dtype, 4) * math.prod(int(n) for n in sizes.split(",") if n)


def _group(text: str, devices: int) -> np.ndarray:
    """The devices of one group, in each of the ways that HLO writes groups."""
    if written := re.search(r"source_target_pairs=\{(.*?)\}\}", text):
        pairs = [tuple(map(int, pair)) for pair in re.findall(r"\{?(\d+),(\d+)", written[1])]
        moved = [pair for pair in pairs if pair[0] != pair[1]] or pairs[:1]
        return np.array(moved[0])
    if written := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return np.array([int(n) for n in written[1].split(",")])
    if written := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        groups, shape, order = (tuple(int(n) for n in part.split(",")) if part else None for part in written.groups())
        ids = np.arange(math.prod(shape)).reshape(shape)
        return (ids.transpose(order) if order else ids).reshape(groups)[0]
    mesh = r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{(.*?)\}"
    if written := re.search(mesh, text):
        axes = [(name, int(size)) for name, size in re.findall(r"'(\w+)'=(\d+)", written[1])]
        shape, order = (tuple(int(n) for n in part.split(",")) if part else None for part in written.groups()[1:3])
        chosen = set(re.findall(r"'(\w+)'", written[4]))
        ids = np.arange(math.prod(size for _, size in axes))
        ids = ids if order is None else ids.reshape(shape).transpose(order)
        ids = ids.reshape([size for _, size in axes])
        return ids[tuple(slice(None) if name in chosen else 0 for name, _ in axes)].ravel()
    return np.arange(devices)


def _axes(group: np.ndarray, mesh: Mesh) -> tuple[str, ...]:
    """The mesh axes along which the devices of a group differ."""
    places = np.unravel_index(group % mesh.size, mesh.devices.shape)
    return tuple(name for name, place in zip(mesh.axis_names, places, strict=True) if len(set(place.tolist())) > 1)


def _sent(kind: str, size: int, ways: int) -> int:
    """Bytes that a device sends for an array of `size` bytes over `ways` devices."""
    if kind == "collective-permute":
        return size
    share = (ways - 1) / ways
    return round(size * share * (2 if kind == "all-reduce" else 1))
