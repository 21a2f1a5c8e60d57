"""Start some processes of one run on this machine, with gloo between them, and wait for all."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests import compiler_flags
from tests.forked import Forked

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def environment(devices: int) -> dict[str, str]:
    """Of a process with so many CPU devices."""
    flags = compiler_flags.devices(devices)
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def run_for_tpu(code: str) -> subprocess.CompletedProcess:
    """A piece of Python in a process of its own, where the TPU's compiler may be loaded: it ends at unknown flags."""
    command, env = [sys.executable, "-c", code], {**environment(1), "XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=800)


def together(
    main: Callable[[list[str]], None], arguments: list[list[str]], folder: Path, devices: int, timeout: float = 420
) -> list[str]:
    """Run `main(argv)` once for each list of arguments, at the same time; what each printed.

    folder: their output goes below it.
    """
    started = [Forked(main, argv, folder / f"process{i}", devices) for i, argv in enumerate(arguments)]
    try:
        codes = [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0] * len(started), "\n\n".join(process.stderr[-2000:] for process in started)
    return [process.stdout for process in started]
