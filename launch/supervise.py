#!/usr/bin/env python3
"""Run a command again while that helps.

    python3 launch/supervise.py [--failures=N] [--backoff=S] [--most=S] [--steady=S] -- osjax train --config=... ...

What a run's exit status decides (those of osjax train):
    0      done: stop
    2      a config or a command line that cannot run: stop, no restart mends it
    75     preempted, stopped or hung, with its state saved: again at once
    other  failed: again after a back-off that doubles from --backoff up to --most seconds
More than --failures runs in a row that gained nothing: stop, with the last status. A run gains where the metrics.jsonl
of its --workdir grows beyond the most lines that it ever had, so one that always fails at the same step gains nothing,
however long it takes to come there. Where that file is not (another command, or a host that writes no metrics), a run
of --steady seconds counts as one that gained.
SIGTERM and SIGINT go on to the command; the supervisor then ends with it, for the machine is wanted elsewhere.

Standard library only, and no random back-off: the hosts of a run each have a supervisor, and must meet again within
the five minutes that jax waits for all processes.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

DONE, USAGE = 0, 2
AGAIN = os.EX_TEMPFAIL  # 75


def pause(failures: int, first: float, most: float) -> float:
    """Seconds to wait after so many `failures` in a row (1 or more). first, most: of the shortest and longest wait."""
    return min(most, first * 2 ** (failures - 1))


def metrics_of(command: list[str]) -> Path | None:
    """The file that grows with the steps of a command; None for one that names no --workdir."""
    for at, word in enumerate(command):
        if word.startswith("--workdir="):
            return Path(word.partition("=")[2]) / "metrics.jsonl"
        if word == "--workdir" and at + 1 < len(command):
            return Path(command[at + 1]) / "metrics.jsonl"
    return None


def lines(path: Path | None) -> int | None:
    """Number of lines of a file, None where it is not."""
    try:
        return None if path is None else path.read_bytes().count(b"\n")
    except OSError:
        return None


class Supervisor:
    """Runs a command until its exit status, or a signal, says to stop.

    failures: runs in a row that may gain nothing. backoff, most: seconds of the first and of the longest wait after a
    failure. steady: seconds of a run that counts as one that gained, where nothing tells how far it came.
    """

    def __init__(self, command: list[str], failures: int, backoff: float, most: float, steady: float):
        self.command, self.failures, self.backoff, self.most, self.steady = command, failures, backoff, most, steady
        self.metrics = metrics_of(command)
        self.child: subprocess.Popen | None = None
        self.asked_to_stop = False

    def stop(self, number: int, frame: object) -> None:
        """Handler of signal `number`: pass it on to the command, and start none after it."""
        self.asked_to_stop = True
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def run(self) -> int:
        """The status to exit with."""
        in_a_row, furthest = 0, lines(self.metrics) or 0
        while True:
            status, seconds = self._once()
            if status in (DONE, USAGE) or self.asked_to_stop:
                return status
            come = lines(self.metrics)
            gained = seconds >= self.steady if come is None else come > furthest
            in_a_row, furthest = 0 if gained else in_a_row + 1, max(furthest, come or 0)
            if in_a_row > self.failures:
                self._say(f"status {status} after {seconds:.0f} s, {in_a_row} runs in a row gained nothing: giving up")
                return status
            wait = 0 if status == AGAIN else pause(max(in_a_row, 1), self.backoff, self.most)
            self._say(f"status {status} after {seconds:.0f} s: again in {wait:.0f} s")
            self._sleep(wait)
            if self.asked_to_stop:
                return status

    def _once(self) -> tuple[int, float]:
        started = time.monotonic()
        try:
            self.child = subprocess.Popen(self.command)
        except OSError as error:
            self._say(f"{error.strerror or error}: is it installed?")
            return USAGE, 0.0
        if self.asked_to_stop:  # the signal came before there was a child to pass it to
            self.child.terminate()
        status = self.child.wait()
        return (status if status >= 0 else 128 - status), time.monotonic() - started

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.asked_to_stop and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))

    def _say(self, words: str) -> None:
        print(f"supervise: {shlex.join(self.command)}: {words}", file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """The exit status of a supervised command. argv: options of this script, then -- and the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failures", type=int, default=10, help="runs in a row that gain nothing (default 10)")
    parser.add_argument("--backoff", type=float, default=10.0, help="seconds after the first failure (default 10)")
    parser.add_argument("--most", type=float, default=240.0, help="seconds of the longest back-off (default 240)")
    parser.add_argument(
        "--steady",
        type=float,
        default=1800.0,
        help="seconds after which a run without metrics counts as one that gained (default 1800)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    args = parser.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("no command given: end with -- osjax train --config=FILE.py --workdir=DIR")
    supervisor = Supervisor(command, args.failures, args.backoff, args.most, args.steady)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
