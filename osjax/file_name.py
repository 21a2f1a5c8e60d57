"""Names of files that a foreign file tells, such as an index of weights: those that can lie beside it."""

from pathlib import Path

LONGEST = 255  # bytes of a file's name, on every file system in use


def is_plain(name: str) -> bool:
    r"""Whether `name` can be that of a file in a folder: no path, on any system, and not too long for file systems."""
    if name in ("", ".", "..") or Path(name).name != name or "\0" in name or "\\" in name:
        return False
    return len(name.encode(errors="surrogatepass")) <= LONGEST
