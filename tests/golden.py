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
    n = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF).standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        n = n * (1.0 / math.sqrt(math.prod(shape[1:])))  # Python floats keep the array in float32
        return n * gain if gain != 1 else n
    last = name.rsplit(".", 1)[-1]
    if last in ("weight", "scale", "gamma"):
        return 1 + 0.1 * n
    if last == "running_var":
        return 1 + 0.1 * np.abs(n)
    return 0.1 * n


def relative_error(got, want) -> float:
    """max|a-b| / max|b|, the measure that the tolerances are stated in; NaN counts as infinite."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shapes differ: {got.shape} against {want.shape}"
    error = np.abs(got - want).max() / max(np.abs(want).max(), 1e-30)
    return float(np.inf if np.isnan(error) else error)
