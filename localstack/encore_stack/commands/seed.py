"""`scripts/seed`: load concerts, schedules and seats."""

import argparse
import sys
import time
from collections.abc import Sequence

from pg8000.exceptions import DatabaseError, InterfaceError

from encore_stack.dataset import FIRST_LOOK, FULL, Counts, UnusableCounts, load
from encore_stack.instance import Instance


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 loaded (or nothing was missing), 1 the database could not be loaded, 2 unusable counts."""
    options = _parser().parse_args(arguments)
    try:
        wanted = FULL if options.full else Counts(options.concerts, options.schedules, options.seats)
    except UnusableCounts as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    instance = Instance.load_existing()
    database_url = instance.database_url(instance.postgres_primary)
    started_s = time.monotonic()
    try:
        added = load(database_url, wanted, lambda text: print(f"  {text}", flush=True))
    except (OSError, InterfaceError) as fault:
        print(
            f"error: the database cannot be reached; is the stack up? see scripts/status ({fault!s:.60})",
            file=sys.stderr,
        )
        return 1
    except DatabaseError as fault:
        print(f"error: the database refused the data: {fault}", file=sys.stderr)
        return 1
    if not (added.concerts or added.schedules):
        print(f"nothing to add: all of {wanted.concerts} concerts and {wanted.schedules:,} schedules are there")
        return 0
    print(
        f"added {added.concerts} concerts, {added.schedules:,} schedules, {added.seats:,} seats"
        f" in {time.monotonic() - started_s:.1f} s"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/seed",
        description="Load concerts, schedules and seats. What is there already is left as it is; what is missing of the"
        " counts is added. Concert 5, and of 100 also 30, 55 and 80, go on sale in 30 days; 30 and 80 collect"
        " people for a draw until then (scripts/gate draw makes one of another that is to come, scripts/gate open opens"
        " its sale).",
        epilog="exit codes: 0 loaded or nothing was missing, 1 the database could not be loaded, 2 unusable counts",
    )
    parser.add_argument("--concerts", type=int, default=FIRST_LOOK.concerts, help="in all (default %(default)s)")
    parser.add_argument("--schedules", type=int, default=FIRST_LOOK.schedules, help="in all (default %(default)s)")
    parser.add_argument("--seats", type=int, default=FIRST_LOOK.seats, help="in all (default %(default)s)")
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"the standard data set: {FULL.concerts} concerts, {FULL.schedules:,} schedules, {FULL.seats:,} seats",
    )
    return parser
