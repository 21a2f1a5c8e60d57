"""Compiled programs are kept where the config or the user's environment says, and another process finds them there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# A process that compiles one program; it prints how many it found in the cache, and how many it wrote there.
PROCESS = """
import sys
import jax
from osjax.parallel import compiled
compiled.LEAST_S, counts = 0.0, {"hits": 0, "misses": 0}
def count(event, **_):
    for name in counts:
        counts[name] += event == f"/jax/compilation_cache/cache_{name}"
jax.monitoring.register_event_listener(count)
compiled.keep(sys.argv[1])
jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((7, 7))).block_until_ready()
print(*counts.values())
"""


def run(folder: str, home: Path, own: Path | None = None) -> tuple[int, int]:
    """(programs found, programs compiled) of a process that keeps them in `folder`. own: the user's own cache."""
    env = {**os.environ, "HOME": str(home), "JAX_COMPILATION_CACHE_DIR": str(own or "")}
    done = subprocess.run([sys.executable, "-c", PROCESS, folder], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    hits, misses = map(int, done.stdout.split())
    return hits, misses


def kept(folder: Path) -> int:
    return len(list(folder.glob("*-cache"))) if folder.is_dir() else 0


@pytest.mark.parametrize("named", [True, False])
def test_a_second_process_finds_every_program_of_the_first(named, tmp_path):
    own, default = tmp_path / "own", tmp_path / ".cache" / "osjax"
    first = run("~/.cache/osjax", tmp_path, own if named else None)
    second = run("~/.cache/osjax", tmp_path, own if named else None)
    assert first[0] == 0 < first[1] and second == (first[1], 0)
    assert (kept(own) > 0, kept(default) > 0) == (named, not named)


def test_a_folder_of_the_config_goes_before_the_environment_and_none_keeps_none(tmp_path):
    own, given = tmp_path / "own", tmp_path / "given"
    run(str(given), tmp_path, own)
    assert kept(given) > 0 == kept(own)
