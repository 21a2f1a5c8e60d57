"""Processes that work for this one, each call within a deadline: one that hangs or dies costs its call and is replaced.

Every process has a pipe of its own, so what one leaves half-written as it is killed reaches no other call; with one
pipe for all, as the pools of Pebble and of the standard library have, it would. Arrays come in memory that both
processes see: through a pipe a clip of 100 MB takes 0.5 s, three times as long.
"""

import contextlib
import itertools
import mmap
import os
import pickle
import queue
import resource
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe, reduction
from multiprocessing.connection import Connection
from typing import Any

from osjax.errors import UserError

LARGE = 1 << 20  # bytes of arrays that are worth a file in memory
START_S = 120.0  # seconds that a process has to begin
# A program, not a copy of this process: one of a process with JAX's threads may never wake up. And none by which
# `multiprocessing` would run a user's script again.
PROGRAM = "import sys; sys.path[:] = {path!r}; from osjax.data import workers; workers.serve({fd})"


class Lost(Exception):
    """A call that has no answer, because its process ran past the deadline (`late`) or died. The message says which."""

    def __init__(self, message: str, late: bool):
        super().__init__(message)
        self.late = late


@dataclass(frozen=True, eq=False)
class _Worker:
    """A process that is ready, and this side's end of its pipe."""

    process: subprocess.Popen
    pipe: Connection


class Workers:
    """Up to `count` processes, started when they are first needed. Calls may come from several threads.

    count: processes, 1 or more. start: called once in each process, without arguments; what it returns is the first
    argument of every call there. Must be picklable, as must be functions, arguments and results, by the name of a
    module that can be imported. memory_gb: address space of each, 0 for no limit. start_s: seconds that `start` has.
    """

    def __init__(self, count: int, start: Callable[[], Any], memory_gb: float = 0.0, start_s: float = START_S):
        self._start, self._memory_gb, self._start_s = start, memory_gb, start_s
        self._closed, self._lock = False, threading.Lock()
        self._running: set[_Worker] = set()
        weakref.finalize(self, _kill, self._running)  # also as this process ends
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()  # None: a place without a process yet
        for _ in range(count):
            self._free.put(None)

    def call(self, function: Callable[..., Any], *args: Any, timeout_s: float) -> Any:
        """function(what `start` returned, *args) in the next process that is free; raises what it raises.

        timeout_s: seconds of work, counted from when the process takes the call. `Lost` where there is no answer.
        """
        worker = self._free.get()
        try:
            worker = worker or self._begun()
            worker.pipe.send((function, args))
            if not worker.pipe.poll(timeout_s):
                raise Lost("ran past its deadline", late=True)
            result, error = _receive(worker.pipe)
        except (EOFError, ConnectionError) as gone:
            status = self._end(worker)
            worker = None
            raise Lost(f"took its process down (exit code {status})", late=False) from gone
        except BaseException:
            if worker is not None:
                self._end(worker)
            worker = None
            raise
        finally:
            self._free.put(worker)
        if error is not None:
            raise error
        return result

    def _begun(self) -> _Worker:
        pipe, other = Pipe()
        program = PROGRAM.format(path=[os.path.abspath(folder) for folder in sys.path], fd=other.fileno())
        # A group of its own: ctrl-c is for the process that this one works for.
        command = [sys.executable, "-c", program]
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[other.fileno()], process_group=0)
        except OSError as error:
            raise UserError(f"no process can be started ({error}): end others, or raise their limit") from error
        finally:
            other.close()  # so that the end of the process is the end of the pipe
        worker = _Worker(process, pipe)
        with self._lock:
            self._running.add(worker)
            if self._closed:
                process.kill()
        try:
            pipe.send((self._start, self._memory_gb))
            if not pipe.poll(self._start_s):
                raise Lost("ran past its deadline as it started", late=True)
            error = pipe.recv()
        except (EOFError, ConnectionError) as gone:
            raise Lost(f"took its process down as it started (exit code {self._end(worker)})", late=False) from gone
        except BaseException:
            self._end(worker)
            raise
        if error is not None:
            self._end(worker)
            raise error
        return worker

    def _end(self, worker: _Worker) -> int | None:
        """Kill a process, also one that hangs; its exit status."""
        with self._lock:
            self._running.discard(worker)
        # One whose pipe has ended is about to exit by itself, with the status that tells why.
        with contextlib.suppress(subprocess.TimeoutExpired, EOFError, ConnectionError):
            worker.process.wait(1.0 if worker.pipe.poll(0) else 0.0)
        worker.process.kill()
        worker.pipe.close()
        return worker.process.wait()

    def close(self) -> None:
        """Kill all processes. Calls under way are `Lost`."""
        with self._lock:
            self._closed = True
            _kill(self._running)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def apart(function: Callable[..., Any], *args: Any, timeout_s: float, memory_gb: float) -> Any:
    """function(*args) in a process of its own, that ends with it; raises what it raises.

    timeout_s, memory_gb: seconds and address space that it has. `Lost` where there is no answer.
    """
    with Workers(1, dict, memory_gb) as workers:
        return workers.call(_bare, function, args, timeout_s=timeout_s)


def _bare(held: dict, function: Callable[..., Any], args: tuple) -> Any:
    return function(*args)


def _kill(running: set[_Worker]) -> None:
    for worker in list(running):
        worker.process.kill()
    for worker in list(running):
        worker.process.wait()


def serve(fd: int) -> None:
    """The life of a process: make what it holds, say so, then answer calls until the other end of the pipe is closed.

    fd: number of the open socket to the process that it works for.
    """
    pipe, calls = Connection(fd), queue.SimpleQueue()
    threading.Thread(target=_receive_calls, args=(pipe, calls), daemon=True).start()
    held, error = _outcome(_begin, (calls.get(),))
    pipe.send(error)
    while error is None:
        _send(pipe, _outcome(_called, (calls.get(), held)))


def _receive_calls(pipe: Connection, calls: queue.SimpleQueue) -> None:
    """Put what comes into `calls`; end this process, whatever it does, with the one that it works for."""
    try:
        while True:
            calls.put(pipe.recv_bytes())
    finally:
        os._exit(1)


def _begin(message: bytes) -> Any:
    start, memory_gb = pickle.loads(message)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_gb:
        resource.setrlimit(resource.RLIMIT_AS, (int(memory_gb * 1024**3), resource.getrlimit(resource.RLIMIT_AS)[1]))
    return start()


def _called(call: bytes, held: Any) -> Any:
    function, args = pickle.loads(call)
    return function(held, *args)


def _outcome(function: Callable[..., Any], args: tuple) -> tuple[Any, Exception | None]:
    """(result, None) or (None, the error, which travels only where it can be pickled)."""
    try:
        return function(*args), None
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return None, RuntimeError(f"{type(error).__name__}: {error}")
        return None, error


def _send(pipe: Connection, value: Any) -> None:
    """Send a value whose arrays, if they are large, are in a file that has no name and is in memory: none is left."""
    arrays: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(value, 5, buffer_callback=arrays.append)
    sizes = [array.raw().nbytes for array in arrays]
    if sum(sizes) < LARGE or not hasattr(os, "memfd_create"):  # which Linux alone has
        pipe.send((pickle.dumps(value), None))
        return
    with os.fdopen(os.memfd_create("osjax"), "wb", buffering=0) as file:
        for array in arrays:
            left = array.raw()
            while left:  # at most 2 GiB are written at once
                left = left[file.write(left) :]
        pipe.send((rest, sizes))
        reduction.send_handle(pipe, file.fileno(), None)


def _receive(pipe: Connection) -> Any:
    """What `_send` sent. Large arrays stay where the other process wrote them, until they are dropped."""
    rest, sizes = pipe.recv()
    if sizes is None:
        return pickle.loads(rest)
    with os.fdopen(reduction.recv_handle(pipe), "r+b", buffering=0) as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0))
    ends = list(itertools.accumulate(sizes))
    return pickle.loads(rest, buffers=[memory[end - size : end] for size, end in zip(sizes, ends, strict=True)])
