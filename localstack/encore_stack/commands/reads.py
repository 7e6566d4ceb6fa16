"""`scripts/reads`: send the hot reads of one concert to the database and back, while people look."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from booking.platform.postgres import DatabaseAway
from booking.platform.problems import Refusal
from booking.seats.reads import SOURCES, ReadsChange, UnusableReadsCommand, change_reads, show_reads
from encore_stack.arguments import concert_id
from encore_stack.instance import Instance
from encore_stack.operators import operator_name
from encore_stack.process_settings import adopt_settings

_HELP = """\
Where the hot reads of one concert (its seat maps, its schedules) come from, for all functions at once.

  show               the setting, what the functions have been told, the newest changes
  database           read past the cache: every look asks Postgres, the replica where it is up to date
  cache              the usual: read from the cache again; what is cached is forgotten first
"""


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 done, 1 no such concert or the database is away, 2 misused."""
    options = _parser().parse_args(arguments)
    adopt_settings(Instance.load_existing())
    try:
        if options.action == "show":
            told = show_reads(options.concert)
            print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode() if options.json else as_text(told))
        else:
            change = change_reads(options.concert, options.action, by=operator_name(), reason=options.reason)
            print(msgspec.json.encode(asdict(change)).decode() if options.json else _done(change))
    except UnusableReadsCommand as refused:
        print(f"error: {refused.detail}", file=sys.stderr)
        return 2
    except DatabaseAway as fault:
        print(f"error: {fault}; is the stack up? see scripts/status", file=sys.stderr)
        return 1
    except Refusal as refused:
        print(f"error: {refused.detail or refused}", file=sys.stderr)
        return 1
    return 0


def as_text(reads: dict[str, Any]) -> str:
    """What ``show_reads`` knows, for people."""
    lines = [
        f"concert {reads['concert_id']}  {reads['title']}",
        f"  reads      from the {reads['source']}",
        f"  told       {_told(reads)}",
        "changes, newest first",
    ]
    lines += [_change(change) for change in reads["changes"]] or ["  none: reads are as they come, from the cache"]
    return "\n".join(lines)


def _told(reads: dict[str, Any]) -> str:
    told, of_all = reads["told"], reads["schedules"]
    if told is None:
        return "Redis is away: everybody reads from the database"
    past_cache = told["maps"] + told["list"]
    words = f"{told['maps']} of {of_all} seat maps and the schedules{'' if told['list'] else ' not'}: past the cache"
    if past_cache in (0, of_all + 1):
        words = f"everybody: {'past' if past_cache else 'from'} the cache"
    meant = of_all + 1 if reads["source"] == "database" else 0
    return words if past_cache == meant else f"{words}; told again within 5 s, or when it is read"


def _change(change: dict[str, str]) -> str:
    why = f": {change['reason']}" if change["reason"] not in (change["source"], "") else ""
    return f"  {change['at']}  {change['source']:<10} {change['by']}{why}"


def _done(change: ReadsChange) -> str:
    what = f"concert {change.concert_id}: seat maps of {change.schedules:,} schedules, and their list"
    if not change.in_force:
        return f"{what}: recorded; Redis is away, so all reads come from the database until it is back and is told"
    return f"{what}: from the {change.source}" + (", nothing is cached yet" if change.source == "cache" else "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/reads",
        usage="scripts/reads ACTION CONCERT [--reason TEXT] [--json]",
        description=_HELP,
        epilog="exit codes: 0 done, 1 no such concert or the database is away, 2 misused",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", metavar="ACTION", choices=["show", *SOURCES], help="one of these")
    parser.add_argument("concert", metavar="CONCERT", type=concert_id, help="the concert's id")
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the change")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser
