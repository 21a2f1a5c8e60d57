#!/usr/bin/env python3
"""Run a command again while that helps.

    python3 launch/supervise.py [--failures=N] [--backoff=S] [--most=S] [--steady=S] -- osjax train --config=... ...

What a run's exit status decides (those of osjax train):
    0      done: stop
    2      a config or a command line that cannot run: stop, no restart mends it
    75     preempted, stopped or hung, with its state saved: again at once
    other  failed: again after a back-off that doubles from --backoff up to --most seconds
More than --failures runs in a row that ended within --steady seconds: stop, with the last status.
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

DONE, USAGE = 0, 2
AGAIN = os.EX_TEMPFAIL  # 75


def pause(failures: int, first: float, most: float) -> float:
    """Seconds to wait after so many `failures` in a row (1 or more). first, most: of the shortest and longest wait."""
    return min(most, first * 2 ** (failures - 1))


class Supervisor:
    """Runs a command until its exit status, or a signal, says to stop.

    failures: short runs in a row that are allowed. backoff, most: seconds of the first and of the longest wait after a
    failure. steady: seconds of a run that is not short.
    """

    def __init__(self, command: list[str], failures: int, backoff: float, most: float, steady: float):
        self.command, self.failures, self.backoff, self.most, self.steady = command, failures, backoff, most, steady
        self.child: subprocess.Popen | None = None
        self.asked_to_stop = False

    def stop(self, number: int, frame: object) -> None:
        """Handler of signal `number`: pass it on to the command, and start none after it."""
        self.asked_to_stop = True
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def run(self) -> int:
        """The status to exit with."""
        in_a_row = 0
        while True:
            status, seconds = self._once()
            if status in (DONE, USAGE) or self.asked_to_stop:
                return status
            in_a_row = in_a_row + 1 if seconds < self.steady else 0
            if in_a_row > self.failures:
                self._say(f"status {status} after {seconds:.0f} s, {in_a_row} short runs in a row: giving up")
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
    parser.add_argument("--failures", type=int, default=10, help="short runs in a row (default 10)")
    parser.add_argument("--backoff", type=float, default=10.0, help="seconds after the first failure (default 10)")
    parser.add_argument("--most", type=float, default=240.0, help="seconds of the longest back-off (default 240)")
    parser.add_argument(
        "--steady", type=float, default=1800.0, help="seconds of a run that is not short (default 1800)"
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
