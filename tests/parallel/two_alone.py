"""One of two processes of a run that asks for a folder, started by test_alone.py."""

import sys
import time
from pathlib import Path

from osjax.errors import UserError
from osjax.parallel import mesh
from osjax.parallel.alone import alone


def main(argv: list[str]) -> None:
    """argv: address, process, the folder to hold, and "until FILE" to hold it until that file is there."""
    address, index, folder, until = argv
    mesh.initialize(address, 2, int(index))
    try:
        with alone([folder], "osjax train"):
            print("holds", flush=True)
            while until and not Path(until).exists():
                time.sleep(0.05)
    except UserError as refused:
        print(f"{refused.status} {refused}")
    sys.stdout.flush()
