"""`scripts/bench`: the steps and the main statements beside their floors."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import get_args

from benchmarks import cold_start, partitions, redis_topologies
from benchmarks.cases import GROUPS
from benchmarks.report import BadReport, as_json, as_table, read_earlier
from benchmarks.run import Plan, audit, measure_all
from benchmarks.stage import INSTANCE
from benchmarks.tools import ToolError
from bookings import run as bookings
from bookings.minute import TARGET_PER_S
from consumers.run import measure_consumers
from encore_stack.commands import down
from encore_stack.instance import Instance
from line.run import measure_line
from outbox.run import measure_outbox

_ROUNDS, _DURATION_S = 5, 2.0
_QUICK_ROUNDS, _QUICK_DURATION_S = 3, 1.0
_ROUNDS_MAX, _DURATION_S_MAX = 50, 60.0


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 measured, 1 something could not be measured or the audit failed, 2 misused."""
    os.environ["ENCORE_INSTANCE"] = INSTANCE
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # told to end it takes its instance down, as after Ctrl-C
    options = _options(arguments)
    try:
        return _measure(options)
    except BadReport as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    except ToolError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1


def _measure(options: argparse.Namespace) -> int:
    measure = next((measure for name, measure in _INSTEAD.items() if getattr(options, name)), _measure_steps)
    return measure(options)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.seats and not options.partitions:
        parser.error("--seats is for --partitions")
    return options


def _measure_steps(options: argparse.Namespace) -> int:
    plan = Plan(
        groups=options.only or GROUPS,
        match=options.match,
        rounds=options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS),
        duration_s=options.seconds or (_QUICK_DURATION_S if options.quick else _DURATION_S),
    )
    earlier = read_earlier(options.against) if options.against else None
    started_s = time.monotonic()
    results, audited = _audited(lambda: measure_all(plan, _tell), keep=options.keep)
    settings = {"rounds": plan.rounds, "duration_s": plan.duration_s}
    print(as_json(results, settings) if options.json else as_table(results, earlier))
    print(
        f"measured in {time.monotonic() - started_s:.0f} s; the audit {'FAILED' if audited else 'passed'}",
        file=sys.stderr,
    )
    return 1 if audited or any(result.fault for result in results) else 0


def _measure_line(options: argparse.Namespace) -> int:
    told, audited = _audited(lambda: measure_line(options.seconds or _DURATION_S, _tell), keep=options.keep)
    print(told)
    return 1 if audited else 0


def _audited[Measured](measure: Callable[[], Measured], *, keep: bool) -> tuple[Measured, int]:
    """What was measured on the instance, and the audit's exit code; whatever happens, the instance is taken down."""
    try:
        measured = measure()
        _tell("the audit")
        return measured, audit()
    finally:
        _take_down(keep=keep)


def _take_down(*, keep: bool) -> None:
    if not keep:
        _tell("taking the instance down")
        with redirect_stdout(sys.stderr):  # what is printed is the table, or JSON for a file
            down.run(["--wipe"])


def _print_cold_starts(options: argparse.Namespace) -> int:
    rounds = options.rounds or _ROUNDS
    print(cold_start.as_markdown(cold_start.measure_cold_starts(rounds, Instance.load().tools_dir, _tell)))
    return 0


def _print_redis(options: argparse.Namespace) -> int:
    rounds = options.rounds or _ROUNDS
    costs = redis_topologies.measure_call_costs(rounds, _tell)
    print(redis_topologies.as_markdown(costs, redis_topologies.measure_failovers(rounds, _tell)))
    return 0


def _print_outbox(options: argparse.Namespace) -> int:
    try:
        print(measure_outbox(options.rounds or _ROUNDS, options.seconds or _DURATION_S, _tell))
    finally:
        _take_down(keep=options.keep)
    return 0


def _measure_bookings(options: argparse.Namespace) -> int:
    try:
        measured = bookings.measure_bookings(options.bookings, options.seconds or bookings.DURATION_S, _tell)
        _tell("the audit")
        audited = audit("--settle")
    finally:
        _take_down(keep=options.keep)
    print(bookings.as_json(measured, audit_passed=not audited) if options.json else bookings.as_markdown(measured))
    print(f"the audit {'FAILED' if audited else 'passed'}", file=sys.stderr)
    return 1 if audited or measured.shortcomings() else 0


def _print_consumers(options: argparse.Namespace) -> int:
    try:
        told, audited = measure_consumers(options.rounds or _QUICK_ROUNDS, _tell)
    finally:
        _take_down(keep=options.keep)
    print(told)
    return 1 if audited else 0


def _print_partitions(options: argparse.Namespace) -> int:
    sizes = options.seats or partitions.SIZES
    rounds, duration_s = options.rounds or _ROUNDS, options.seconds or _DURATION_S
    try:
        measured = partitions.measure_partitions(sizes, rounds, duration_s, keep=options.keep, tell=_tell)
    finally:
        _take_down(keep=options.keep)
    print(partitions.as_markdown(measured))
    return 1 if any(result.fault for size in measured for result in size.results) else 0


_INSTEAD: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "line": _measure_line,
    "cold_start": _print_cold_starts,
    "redis": _print_redis,
    "outbox": _print_outbox,
    "consumers": _print_consumers,
    "bookings": _measure_bookings,
    "partitions": _print_partitions,
}
"""What is measured instead of the steps, by its option."""


def _tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure the seven steps and the main SQL and Lua statements beside their floors, on an instance"
        f" of its own ('{INSTANCE}', full data set, taken down afterwards). Each round measures a case and its floor,"
        " one after the other; 'x floor' is how many times the floor's cost a case has (median, least and most of the"
        " rounds), which says more on a noisy machine than a rate.",
        epilog="exit codes: 0 measured, 1 something could not be measured or the audit failed, 2 misused",
    )
    parser.add_argument(
        "--only", action="append", choices=GROUPS, metavar="GROUP", help=f"one of {', '.join(GROUPS)}; may be repeated"
    )
    parser.add_argument("--match", default="", metavar="TEXT", help="only cases with TEXT in their name")
    parser.add_argument("--rounds", type=_rounds, help=f"of each case (default {_ROUNDS})")
    parser.add_argument("--seconds", type=_seconds, help=f"of each measurement (default {_DURATION_S:g})")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_ROUNDS} rounds of {_QUICK_DURATION_S:g} s")
    parser.add_argument("--json", action="store_true", help="the run as JSON, to be kept for --against")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="put the ratios of an earlier --json run beside these"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--cold-start",
        action="store_true",
        help="instead: CPU and memory of each function's import, as the table of load/cold-start.md; needs no stack",
    )
    instead.add_argument(
        "--line",
        action="store_true",
        help="instead: what one concert's line bears, as in load/line.md: joins a second over 1 to 128 connections,"
        " 100,000 people at once, and the polls of 1,000 to 1,000,000 who wait",
    )
    instead.add_argument(
        "--redis",
        action="store_true",
        help="instead: CPU of a script call on each Redis topology, and how long failovers take (as many kills as"
        " rounds), as the tables of load/redis.md; on instances of its own",
    )
    instead.add_argument(
        "--partitions",
        action="store_true",
        help=f"instead: loading, holds and seat maps with the seats in {partitions.PARTITIONS} hash partitions beside"
        " one table, as the table of load/seats.md; needs up to 14 GiB of disk for a while",
    )
    instead.add_argument(
        "--outbox",
        action="store_true",
        help="instead: commit to broker at 100 payments a second, what the outbox costs, and what is lost without it,"
        " as in load/outbox.md",
    )
    instead.add_argument(
        "--consumers",
        action="store_true",
        help="instead: how fast a backlog of events is consumed, by the number of partitions, as the table of"
        " load/consumers.md",
    )
    instead.add_argument(
        "--bookings",
        nargs="?",
        const="both",
        choices=get_args(bookings.Which),
        help=f"instead: {TARGET_PER_S} complete bookings a second on the whole stack for {bookings.DURATION_S:g} s"
        " (--seconds) with every event drained, and payments over more and more buyers while the payment firms take"
        " 750 ms, as in load/bookings.md; exit code 1 when a target is missed",
    )
    parser.add_argument(
        "--seats",
        action="append",
        type=_seats,
        metavar="N",
        help="of --partitions: how many seats, may be repeated (default"
        f" {' and '.join(f'{size:,}' for size in partitions.SIZES)})",
    )
    parser.add_argument("--keep", action="store_true", help="leave the instance up: the next run starts at once")
    return parser


def _rounds(text: str) -> int:
    return int(_between_1_and(_ROUNDS_MAX, text if text.isdecimal() else ""))


def _seats(text: str) -> int:
    most, step = partitions.SIZES[-1], partitions.SEATS_STEP
    if text.isascii() and text.isdigit() and step <= int(text[:12]) <= most and int(text) % step == 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no multiple of {step:,} up to {most:,}")


def _seconds(text: str) -> float:
    return _between_1_and(_DURATION_S_MAX, text)


def _between_1_and(most: float, text: str) -> float:
    with suppress(ValueError):
        if 1 <= float(text) <= most:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number from 1 to {most:g}")
