"""Reads the parity data in tests/goldens: arrays, settings, and weights made from their names."""

import gzip
import json
import math
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

FOLDER = Path(__file__).parent / "goldens"


def read(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and settings of one golden."""
    arrays = FOLDER / f"{name}.safetensors"
    return (load_file(arrays) if arrays.exists() else {}), read_json(name)


def read_json(name: str) -> dict:
    plain = FOLDER / f"{name}.json"
    if plain.exists():
        return json.loads(plain.read_text())
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def generate(name: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """The weight that a state-dict name stands for (the recipe of the parity data)."""
    n = standard_normal(zlib.crc32(name.encode()) & 0xFFFFFFFF, math.prod(shape)).reshape(shape)
    if len(shape) >= 2:
        n = n * (1.0 / math.sqrt(math.prod(shape[1:])))  # Python floats keep the array in float32
        return n * gain if gain != 1 else n
    last = name.rsplit(".", 1)[-1]
    if last in ("weight", "scale", "gamma"):
        return 1 + 0.1 * n
    if last == "running_var":
        return 1 + 0.1 * np.abs(n)
    return 0.1 * n


def standard_normal(seed: int, count: int) -> np.ndarray:
    """`RandomState(seed).standard_normal(count)` in float32, by whole arrays: in two fifths of the time.

    numpy draws points of a square, takes those in the unit circle, and gives two numbers for each, the second first
    (Marsaglia's polar method).
    """
    rng, out, done = np.random.RandomState(seed), np.empty(count, np.float32), 0
    while done < count:
        drawn = rng.random_sample(2 * min(2**13, int((count - done) * 0.64) + 64)) * 2 - 1
        x, y = drawn[::2], drawn[1::2]
        square = x * x + y * y
        inside = (square < 1) & (square != 0)
        square = square[inside]
        factor = np.sqrt(-2 * np.log(square) / square)
        pairs = np.empty((len(square), 2), np.float32)
        pairs[:, 0], pairs[:, 1] = factor * y[inside], factor * x[inside]
        taken = pairs.reshape(-1)[: count - done]
        out[done : done + len(taken)] = taken
        done += len(taken)
    return out


def relative_error(got, want) -> float:
    """max|a-b| / max|b|, the measure that the tolerances are stated in; NaN counts as infinite."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shapes differ: {got.shape} against {want.shape}"
    error = np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
    return float(np.inf if np.isnan(error) else error)
