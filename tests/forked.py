"""Functions in processes of their own, whose imports are done already.

Each is a fork of a process that has read the modules and done nothing else, not even looked for devices: real processes
to kill and to stop, without the seconds that every interpreter spends on reading jax.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests import compiler_flags

ROOT = Path(__file__).parents[1]
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["osjax.cli.train", "osjax.cli.demo", "osjax.serve.app", "osjax.serve.worker"])


class Forked:
    """`main(argv)` with so many virtual devices, from the repository's root; what it returns is the exit status.

    main: a function of a module. folder: for the files of what it prints.
    """

    def __init__(self, main: Callable[[list[str]], int | None], argv: list[str], folder: Path, devices: int = 1):
        folder.mkdir(parents=True, exist_ok=True)
        self.args = argv
        self._out, self._err = folder / "out.log", folder / "err.log"
        flags = {"XLA_FLAGS": compiler_flags.devices(devices)}
        self._process = _SERVER.Process(target=_run, args=(main, argv, flags, str(self._out), str(self._err)))
        self._process.start()

    @property
    def stdout(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def stderr(self) -> str:
        return self._err.read_text() if self._err.exists() else ""

    def poll(self) -> int | None:
        """Exit status, -signal where one ended it, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def finish(self, timeout: float) -> "Forked":
        """Wait for its end; kill it where that does not come."""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return self

    def until(self, condition, timeout: float = 600) -> None:
        """Wait until something is so, or the process has ended."""
        deadline = time.monotonic() + timeout
        while self.poll() is None and not condition() and time.monotonic() < deadline:
            time.sleep(0.02)


def _run(main: Callable, argv: list[str], environment: dict[str, str], out: str, err: str) -> None:
    os.environ.update(environment)
    os.chdir(ROOT)
    for name, stream in ((out, sys.stdout), (err, sys.stderr)):
        stream.flush()
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    sys.exit(main(argv))
