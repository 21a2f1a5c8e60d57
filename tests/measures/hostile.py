"""Hostile files of all kinds through osjax, counted: `python -m tests.measures.hostile FILES SEED [KIND ...]`.

Every case runs in a process of its own that has 20 seconds. Looked for: code that ran (a module that touches a file
when it is imported, and commands that would), reads outside (times of access of files, their text in output,
connections to a listener), native crashes, hangs, and errors that are not one line.
"""

import contextlib
import logging
import os
import random
import re
import shutil
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from osjax.__main__ import main as command_line
from osjax.data import video
from osjax.data.workers import Lost, Workers
from osjax.errors import UserError
from tests import hostile_files
from tests.cli.test_convert import CONFIG, fields
from tests.data.test_opened import grey, transport_stream
from tests.hostile_files import Traps
from tests.models.test_mmdit import tensors

SECONDS = 20.0  # of a case; one that is late has four times as many in a second try, as the machine may be busy
SECRET = "SECRET-6f1c9a"
HARMS = ("executed", "outside", "crashes", "hangs", "raw")


@dataclass
class Counted:
    """What became of the files of a kind: cases by outcome, and lines about what should not have been."""

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)


class Watch:
    """Traps below a folder, and whether anything fell into them."""

    def __init__(self, folder: Path):
        self.folder, self.connections = folder, 0
        outside, modules = folder / "outside", folder / "modules"
        for made in (outside, modules):
            made.mkdir(parents=True)
        (outside / "secret.txt").write_text(SECRET)
        (outside / "secret.ts").write_bytes(transport_stream())
        Image.new("RGB", (32, 32), "red").save(outside / "secret.png")
        (modules / "hostile_canary.py").write_text(f"open({str(folder / 'imported')!r}, 'w').close()\n")
        os.utime(outside / "secret.txt", (0, 1))
        (outside / "secret.txt").read_bytes()
        self.forgets_times = (outside / "secret.txt").stat().st_atime == 0  # a file system may not keep them
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._listen, daemon=True).start()
        address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.traps = Traps("hostile_canary", folder / "ran", outside, address)

    def _listen(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                self.listener.accept()[0].close()
                self.connections += 1

    def reset(self) -> None:
        self.connections = 0
        for name in ("imported", "ran"):
            (self.folder / name).unlink(missing_ok=True)
        for path in self.traps.outside.iterdir():
            os.utime(path, (0, path.stat().st_mtime))

    def executed(self) -> bool:
        return (self.folder / "imported").exists() or (self.folder / "ran").exists()

    def outside(self) -> bool:
        return self.connections > 0 or any(path.stat().st_atime > 0 for path in self.traps.outside.iterdir())


def sound(folder: Path) -> Path:
    """A folder of sound files, to be damaged."""
    media = folder / "media"
    media.mkdir(parents=True)
    (media / "sound.mp4").write_bytes(grey(frames=8))
    noise = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8)
    (media / "noise.mp4").write_bytes(video.encode(noise, 8))
    (media / "noise.ts").write_bytes(transport_stream())
    for suffix in ("png", "jpg", "gif", "webp", "tiff", "bmp"):
        Image.fromarray(noise[0]).save(media / f"noise.{suffix}")
    (folder / "clips").mkdir()
    for n in range(2):
        shutil.copy(media / "sound.mp4", folder / "clips" / f"{n}.mp4")
        (folder / "clips" / f"{n}.txt").write_text(f"clip {n}")
    _run(["data", "build", str(folder / "clips"), str(folder / "set")])
    values = {"video": fields("mmdit_a"), "flux": fields("mmdit_b"), "ae": fields("dcae_tiny")}
    (folder / "m.py").write_text(CONFIG.format(**{name: repr(value) for name, value in values.items()}))
    save_file({name: x[:0] if x.ndim > 1 else x for name, x in tensors("mmdit_a").items()}, folder / "w.safetensors")
    save_file(tensors("mmdit_a"), folder / "whole.safetensors")
    words = [str(folder / "whole.safetensors"), str(folder / "ckpt"), "--model=video"]
    _run(["convert", f"--config={folder / 'm.py'}", *words])
    return folder


def _run(words: list[str]) -> None:
    if command_line(words):
        raise SystemExit(f"{words} failed")


@contextlib.contextmanager
def _captured() -> Iterator[list[str]]:
    """What this process and those that it starts print in the block, as one text, when it has ended."""
    out: list[str] = []
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        for fd in (1, 2):
            os.dup2(file.fileno(), fd)
        try:
            yield out
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, old in zip((1, 2), kept, strict=True):
                os.dup2(old, fd)
                os.close(old)
            file.seek(0)
            out.append(file.read().decode(errors="replace"))


def tried(_: object, kind: str, seed: int, folder: Path, traps: Traps, made: Path) -> tuple[int, str, str]:
    """Number of files, outcome and what was printed of one case, which is made and read in this process."""
    os.chdir(folder)
    logging.root.handlers.clear()  # the command line has its own, as in a process of its own
    inside = folder / "in"
    inside.mkdir()
    count, reads = hostile_files.KINDS[kind](inside, random.Random(f"{kind} {seed}"), traps, made)
    with _captured() as out:
        outcome, line = _outcome(reads)
    text = out[0] + line
    if callable(reads):
        return count, outcome, text
    said = [line for line in out[0].splitlines() if line.startswith("osjax: ")]
    if len(said) != (outcome != "read") or "--traceback" in text:
        outcome = "raw"
    return count, outcome, text


def _outcome(reads: hostile_files.Reads) -> tuple[str, str]:
    try:
        if not callable(reads):
            status = command_line(list(reads))
            return ("read" if status == 0 else "refused" if status in (1, 2) else "raw"), ""
        reads()
        return "read", ""
    except UserError as error:
        return ("raw" if "\n" in str(error) else "refused"), str(error)
    except BaseException as error:
        return "raw", f"{type(error).__name__}: {error}"


def measure(files: int, seed: int, kinds: list[str], root: Path) -> dict[str, Counted]:
    """Put as many files of every kind through its readers. root: an empty folder. seed: of the first case."""
    watch = Watch(root / "watch")
    made = sound(root / "sound")
    sys.path.append(str(root / "watch" / "modules"))
    counted = {kind: Counted() for kind in kinds}
    with Workers(1, dict) as process:
        for kind, row in counted.items():
            case = seed
            while row.files < files:
                _case(process, watch, kind, case, root / "cases" / f"{len(kind)}-{case}", made, row)
                case += 1
    return counted


def _case(process: Workers, watch: Watch, kind: str, seed: int, folder: Path, made: Path, row: Counted) -> None:
    count, outcome, text = 1, "", ""
    for seconds in (SECONDS, 4 * SECONDS):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        watch.reset()
        try:
            count, outcome, text = process.call(tried, kind, seed, folder, watch.traps, made, timeout_s=seconds)
            break
        except Lost as error:
            outcome, text = ("hangs" if error.late else "crashes"), str(error)
            if not error.late:
                break
    row.files += count
    harms = [outcome] if outcome in HARMS else []
    harms += ["executed"] * watch.executed() + ["outside"] * (watch.outside() or SECRET in text or _spilt(folder))
    row.outcomes.update([outcome] if outcome not in HARMS else [], **dict.fromkeys(harms, 1))
    if harms:
        row.told.append(f"{kind} {seed}: {', '.join(harms)}: {' '.join(text.split())[-500:]}")
        print(row.told[-1], flush=True)
    shutil.rmtree(folder, ignore_errors=True)


def _spilt(folder: Path) -> bool:
    """Whether a file that was written has the text of the secret."""
    plain = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and p.stat().st_size < 2**24)
    return any(re.search(SECRET.encode(), p.read_bytes()) for p in plain)


def main() -> None:
    files, seed, *kinds = sys.argv[1:]
    kinds = kinds or list(hostile_files.KINDS)
    with tempfile.TemporaryDirectory() as root:
        counted = measure(-(-int(files) // len(kinds)), int(seed), kinds, Path(root))
    print("| kind | files | read | refused | executed | outside | crashes | hangs | raw errors |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for kind, row in counted.items():
        told = [str(row.outcomes[name]) for name in ("read", "refused", *HARMS)]
        print(f"| {kind} | {row.files} | {' | '.join(told)} |")


if __name__ == "__main__":
    from tests.measures import hostile  # under its name, by which other processes find its functions

    hostile.main()
