"""Flags of the verbs that run on several hosts."""

import argparse

from osjax.errors import UserError
from osjax.parallel import mesh as device_mesh


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that `join` reads."""
    parser.add_argument("--multihost", action="store_true", help="join the processes that the cluster has started")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="process 0, where the cluster cannot be asked")
    parser.add_argument("--processes", type=int, metavar="N", help="how many there are, with --coordinator")
    parser.add_argument("--process", type=int, metavar="I", help="which one this is, with --coordinator")


def join(args: argparse.Namespace) -> None:
    """Join the other processes, where the flags say so. UserError for half of them."""
    given = (args.coordinator, args.processes, args.process)
    if any(x is not None for x in given) and None in given:
        raise UserError("give --coordinator, --processes and --process together", status=2)
    if args.multihost or args.coordinator:
        device_mesh.initialize(*given)
