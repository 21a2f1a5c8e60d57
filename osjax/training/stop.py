"""Requests to stop a run: SIGTERM, Ctrl-C, a machine that is about to be taken away."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Gives `stopped(step)`: has SIGTERM or Ctrl-C asked the run to stop? A second Ctrl-C stops at once.

    With several hosts the answer must be the same on all at the same step, or they would wait for each other for ever:
    jax's own SIGTERM handler then agrees on a step, and handlers of ours would hide the signal from it.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return

    def request(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda step: event.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
