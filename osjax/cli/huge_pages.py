"""Huge pages for the memory of a run on a CPU: one page fault for 2 MB instead of 512 of them."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TUNABLE = "glibc.malloc.hugetlb"
OLDEST = (2, 35)  # glibc that knows it


def environment(now: Mapping[str, str], setting: str, libc: str) -> dict[str, str] | None:
    """The environment to start again with, or None where that would change nothing.

    now: this process's. setting: the kernel's, such as "always [madvise] never". libc: such as "glibc 2.36".
    """
    tunables = now.get("GLIBC_TUNABLES", "")
    name, _, version = libc.partition(" ")
    known = name == "glibc" and tuple(int(n) for n in version.split(".")[:2]) >= OLDEST
    platforms = now.get("JAX_PLATFORMS", "")
    if not known or "[madvise]" not in setting or TUNABLE in tunables or (platforms and "cpu" not in platforms):
        return None
    return {**now, "GLIBC_TUNABLES": ":".join(filter(None, (tunables, f"{TUNABLE}=1")))}


def ask() -> None:
    """Start this command again, once and in the same process, with glibc asked for huge pages.

    XLA's CPU backend allocates a step's temporaries anew each time, and touching them page by page took a quarter of
    the demo's steps. Only the environment that a process starts with can ask; to say no, set GLIBC_TUNABLES to
    glibc.malloc.hugetlb=0.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        wanted = environment(os.environ, SETTING.read_text(), os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (OSError, ValueError):
        return
    if wanted is not None:
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)
