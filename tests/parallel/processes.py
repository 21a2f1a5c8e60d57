"""Start some processes of one run on this machine, with gloo between them, and wait for all."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests import compiler_flags

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def environment(devices: int) -> dict[str, str]:
    """Of a process with so many CPU devices."""
    flags = compiler_flags.devices(devices)
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


def run_python(code: str, devices: int = 1) -> subprocess.CompletedProcess:
    """A piece of Python in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=800)


def together(module: str, arguments: list[list[str]], devices: int, timeout: float = 420) -> list[str]:
    """Run `python -m module` once for each list of arguments, at the same time; what each printed."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module, *argv],
            cwd=ROOT,
            env=environment(devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for argv in arguments
    ]
    try:
        said = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    codes = [process.returncode for process in started]
    assert codes == [0] * len(started), "\n\n".join(err[-2000:] for _, err in said)
    return [out for out, _ in said]
