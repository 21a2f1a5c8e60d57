"""Command lines of osjax in processes of their own."""

from pathlib import Path

from osjax.__main__ import main
from tests.forked import Forked


class Started(Forked):
    """`python -m osjax ARGV...` with so many virtual devices, from the repository's root."""

    def __init__(self, argv: list[str], folder: Path, devices: int = 1):
        super().__init__(main, argv, folder, devices)
