"""`scripts/locks`: who holds which seats' locks just now, and which seats people have fought over."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from redis.exceptions import RedisError

from booking.seats.lock_history import Contention, EndedWait, HeldLock, LockHistory, read_lock_history
from encore_stack.arguments import whole_number
from encore_stack.instance import Instance
from encore_stack.process_settings import adopt_settings

_ROWS_DEFAULT = 20
_WATCH_S = 2.0
_CLEAR_SCREEN = "\033[2J\033[H"
_HELP = """\
Who holds which seats' locks just now, and which seats people have fought over.

  held       locks of this moment: the lock's number (it rises with every lock of a schedule), what is left of it,
             and whose it is: a hash stands for the person, as everywhere
  contended  seats that somebody found locked in the last 24 hours, most waits first: how often it was waited for, how
             often in vain (409), how long on average and at most, and how many locks ran out under a slow or dead owner
  waits      the newest waits that ended, and locks that ran out: at most 100 of each schedule

It walks over all keys of the locks' Redis, in slices that keep nobody waiting.
"""


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 shown (also when there was nothing, and when --watch was ended by Ctrl-C), 1 Redis is away,
    2 misused."""
    options = _parser().parse_args(arguments)
    adopt_settings(Instance.load_existing())
    if options.watch:
        return _watch(options)
    try:
        _show(options)
    except RedisError as fault:
        print(f"error: {_away(fault)}; is the stack up? see scripts/status", file=sys.stderr)
        return 1
    return 0


def _watch(options: argparse.Namespace) -> int:
    """Goes on while Redis is away, as in a failover that somebody wants to watch."""
    try:
        while True:
            try:
                _show(options, before=_CLEAR_SCREEN if sys.stdout.isatty() else "")
            except RedisError as fault:
                print(_away(fault), file=sys.stderr)
            time.sleep(_WATCH_S)
    except KeyboardInterrupt:
        return 0


def _show(options: argparse.Namespace, before: str = "") -> None:
    history = read_lock_history(options.schedule, options.rows)
    if not options.json:
        print(before + as_text(history, options.rows) + ("\n" if options.watch else ""))
    elif options.watch:
        print(msgspec.json.encode(_document(history, options.rows)).decode())
    else:
        print(msgspec.json.format(msgspec.json.encode(_document(history, options.rows)), indent=2).decode())
    sys.stdout.flush()


def _document(history: LockHistory, rows: int) -> dict[str, object]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "totals": _totals(history.contended),
        "held": history.held[:rows],
        "contended": [
            msgspec.to_builtins(seat) | {"waited_ms_mean": round(seat.waited_ms_mean, 1)}
            for seat in history.contended[:rows]
        ],
        "waits": history.waits,
    }


def as_text(history: LockHistory, rows: int) -> str:
    """The history for people: its waits, and at most so many rows of the rest."""
    sections = [
        _section(
            f"held just now: {len(history.held):,}",
            "nobody holds a seat's lock",
            ("schedule", "seat", "lock", "left ms", "person", "attempt"),
            [_held(lock) for lock in history.held[:rows]],
        ),
        _section(
            _heading(history.contended),
            "nobody has had to wait for a seat in the last 24 hours",
            ("schedule", "seat", "waits", "refused", "mean ms", "most ms", "ran out"),
            [_contended(seat) for seat in history.contended[:rows]],
        ),
    ]
    if history.waits:
        sections.append(
            _section(
                "the newest waits",
                "",
                ("at", "schedule", "seat", "ended", "waited ms", "who waited", "for whose lock", "number"),
                [_ended(wait) for wait in history.waits],
            )
        )
    return "\n".join(sections)


def _heading(contended: Sequence[Contention]) -> str:
    totals = _totals(contended)
    return (
        f"contended: seats {totals['seats']:,}, schedules {totals['schedules']:,}, waits {totals['waits']:,},"
        f" refused {totals['refused']:,}, locks that ran out {totals['expired']:,}"
    )


def _totals(contended: Sequence[Contention]) -> dict[str, int]:
    return {
        "schedules": len({seat.schedule_id for seat in contended}),
        "seats": len(contended),
        "waits": sum(seat.waits for seat in contended),
        "refused": sum(seat.refused for seat in contended),
        "expired": sum(seat.expired for seat in contended),
    }


def _held(lock: HeldLock) -> tuple[object, ...]:
    return (lock.schedule_id, lock.seat, lock.number, lock.left_ms, lock.person, lock.attempt)


def _contended(seat: Contention) -> tuple[object, ...]:
    mean, most = f"{seat.waited_ms_mean:.0f}", seat.waited_ms_max
    return (seat.schedule_id, seat.seat, seat.waits, seat.refused, mean, most, seat.expired)


def _ended(wait: EndedWait) -> tuple[object, ...]:
    waited = "-" if wait.person is None else wait.waited_ms
    what = (wait.at, wait.schedule_id, wait.seat, wait.ended, waited)
    return (*what, wait.person or "-", wait.holder_person, wait.holder_number)


def _section(heading: str, nothing: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return nothing
    cells = [[*columns], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns))]
    lines = ["  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join([heading, *(line.rstrip() for line in lines)])


def _away(fault: RedisError) -> str:
    return f"the Redis of the seats' locks does not answer ({fault}): sales go on, Postgres alone decides"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/locks",
        usage="scripts/locks [SCHEDULE] [-n ROWS] [--watch] [--json]",
        description=_HELP,
        epilog="exit codes: 0 shown, also when there is nothing; 1 Redis is away; 2 misused",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    above_0 = whole_number(1, 2**63 - 1, "is not a whole number above 0")
    parser.add_argument("schedule", metavar="SCHEDULE", nargs="?", type=above_0, help="only this schedule's seats")
    rows = f"how many rows of each kind (default {_ROWS_DEFAULT})"
    parser.add_argument("-n", "--rows", metavar="ROWS", type=above_0, default=_ROWS_DEFAULT, help=rows)
    parser.add_argument("-w", "--watch", action="store_true", help="again every 2 seconds, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="for machines; with --watch a line each time")
    return parser
