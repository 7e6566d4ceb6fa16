"""`scripts/long-locks`: what sits on seats now, who has done so for too long, and an end to it."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from booking.operations.long_locks import LEFT_ALONE, NoLockHolder, end_lock_holder, lock_holders, long_lock_record
from booking.platform.settings import settings
from encore_stack.arguments import process_id, whole_number
from encore_stack.instance import Instance
from encore_stack.operators import exit_code, operator_name
from encore_stack.process_settings import adopt_settings

_SHOWN = 10
_SHOWN_MAX = 1_000
_QUERY_LENGTH_MAX = 160


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 done, 1 not ended, or the database is away, 2 misused."""
    options = _parser().parse_args(arguments)
    adopt_settings(Instance.load_existing())
    verb = _show if options.end is None else _end_holder
    return exit_code(lambda: verb(options), {NoLockHolder: "scripts/long-locks shows who does"})


def _end_holder(options: argparse.Namespace) -> int:
    record = end_lock_holder(options.end, operator_name())
    print(_as_json(record) if options.json else as_line(record))
    if record["fault"]:
        print(f"error: session {options.end} is still there: {record['fault']}", file=sys.stderr)
        return 1
    return 0


def _show(options: argparse.Namespace) -> int:
    holders, record = lock_holders(), long_lock_record(options.limit)
    print(_as_json({"now": holders, "record": record}) if options.json else as_text(holders, record))
    return 0


def as_text(holders: Sequence[dict[str, Any]], record: Sequence[dict[str, Any]]) -> str:
    """Who holds locks now and who has held them for too long, for people."""
    lines = [f"locked now (ended after {settings().long_lock_s_max:g} s, if idle or waited for)"]
    for holder in holders:
        spared = ", left alone by the job" if holder["application_name"] in LEFT_ALONE else ""
        waits = f"{holder['waiting'] or 'nobody'} {'wait' if holder['waiting'] > 1 else 'waits'}"
        lines += [f"  {_who(holder)}  {holder['state']}, {waits}{spared}", *_what(holder)]
    lines += [] if holders else ["  nothing"]
    lines.append("recorded, newest first")
    for one in record:
        lines += [f"  {as_line(one)}", *_what(one)]
    lines += [] if record else ["  nothing"]
    return "\n".join(lines)


def as_line(record: dict[str, Any]) -> str:
    """One record: when it was found, who it was, and what has become of it."""
    waited = f"{record['waiting'] or 'nobody'} waited"
    return f"{_second(record['found_at'])}  {_who(record)}  {record['state']}, {waited}; {_end(record)}"


def _end(record: dict[str, Any]) -> str:
    if record["ended_at"] is None:
        return f"still there: {record['fault']}"
    if record["ended_by"] == "itself":
        return f"ended by itself at {_second(record['ended_at'])}; it could not be ended: {record['fault']}"
    return f"ended by {record['ended_by']}"


def _who(one: dict[str, Any]) -> str:
    where = f" from {one['client']}" if one["client"] else ""
    return f"pid {one['pid']}  {one['role']}{where} ({one['application_name'] or 'no name'})  {one['held_s']:.1f} s"


def _what(one: dict[str, Any]) -> list[str]:
    query = " ".join(one["query"].split())
    shown = query if len(query) <= _QUERY_LENGTH_MAX else query[:_QUERY_LENGTH_MAX] + "…"
    return [f"      {', '.join(one['holds'])}: {shown}"]


def _second(moment: str) -> str:
    return f"{moment[:19]}Z"


def _as_json(shown: object) -> str:
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/long-locks",
        description="Show the database sessions whose transactions hold locks of the sale now (seats, reservations,"
        " payments, a person), how long they have been open and how many wait for them; and the record of those that"
        " sat there for too long. every_minute_end_long_locks ends those by itself, save sessions that call themselves"
        f" {', '.join(LEFT_ALONE)} (PGAPPNAME). The locks in Redis are scripts/locks.",
        epilog="exit codes: 0 done, 1 the session holds no such locks or could not be ended, or the database is away,"
        " 2 misused",
    )
    parser.add_argument("--end", metavar="PID", type=process_id, help="end this session now; recorded, with who did it")
    up_to_limit = whole_number(1, _SHOWN_MAX, f"is no number from 1 to {_SHOWN_MAX:,}")
    parser.add_argument("--limit", metavar="N", type=up_to_limit, default=_SHOWN, help="records to show (%(default)s)")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser
