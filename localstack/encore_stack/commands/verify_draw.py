"""`scripts/verify-draw`: recompute a draw from its published seed and hold the admission record against it."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from booking.operations.draw import DrawCheck, DrawUncheckable, check_draw
from booking.platform.postgres import DatabaseAway, Server
from booking.platform.settings import settings
from booking.queue import person_of
from encore_stack.arguments import concert_id, whole_number
from encore_stack.instance import Instance
from encore_stack.process_settings import adopt_settings

_SHOWN = 5
_FAULTS_SHOWN_MAX = 10
_PERSON = re.compile(r"[A-Za-z0-9_-]{22}")
_SHA256 = re.compile(r"[A-Fa-f0-9]{64}")
_SHOWN_MAX = 10**9 - 1
_STATEMENT_TIMEOUT_MS = 60_000


class UnusablePeople(Exception):
    """The list of people cannot be read; the message says what is wrong."""


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 the record agrees, 1 it does not, 2 misused, or there is nothing to check (yet)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.user_ids and options.people is None:
        parser.error("--user-ids says what is in the FILE of --people, which is missing")
    adopt_settings(Instance.load_existing())
    server = Server(settings().database_url, statement_timeout_ms=_STATEMENT_TIMEOUT_MS)
    try:
        people = None if options.people is None else _read_people(options.people, as_user_ids=options.user_ids)
        check = check_draw(server, options.concert, people, options.seed_hash)
    except (UnusablePeople, DrawUncheckable) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    except DatabaseAway as fault:
        print(f"error: {fault}; is the stack up? see scripts/status", file=sys.stderr)
        return 2
    finally:
        server.close()
    source = options.people or "the admission record"
    print(as_text(check, options.concert, source, options.show))
    return 1 if check.faults else 0


def as_text(check: DrawCheck, concert_id: int, source: str, shown: int) -> str:
    """What was recomputed, and whether the record agrees."""
    lines = [
        f"the draw of concert {concert_id}  {check.title}",
        f"  seed       {check.seed}",
        f"  SHA-256    {check.seed_hash}",
        f"  took part  {len(check.order):,} people, by {source}",
        f"  let in     {check.let_in:,} by the draw",
    ]
    if check.late or check.missing:
        lines.append(
            f"  absent     {check.late + check.missing:,} were not there at their turn: {check.late:,} came in later,"
            f" {check.missing:,} have not"
        )
    lines += [f"  {rank:>9}. {person}  {key}" for rank, (key, person) in enumerate(check.order[:shown], start=1)]
    if len(check.order) > shown:
        lines.append(f"             … and {len(check.order) - shown:,} more (--show N)")
    if not check.faults:
        lines.append("the record agrees: every place is what the seed gives, and nobody who was there was overtaken")
        return "\n".join(lines)
    lines.append(f"the record DISAGREES in {len(check.faults):,} point{'' if len(check.faults) == 1 else 's'}")
    lines += [f"  {subject}: {fault}" for subject, fault in check.faults[:_FAULTS_SHOWN_MAX]]
    if len(check.faults) > _FAULTS_SHOWN_MAX:
        lines.append(f"  … and {len(check.faults) - _FAULTS_SHOWN_MAX:,} more")
    return "\n".join(lines)


def _read_people(name: str, *, as_user_ids: bool) -> list[str]:
    try:
        # scripts/verify-draw works in the project's folder, the path is meant from where the person stands.
        path = Path(os.environ.get("ENCORE_CALLER_DIR", "."), name)
        text = sys.stdin.read() if name == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise UnusablePeople(f"{name} cannot be read: {getattr(fault, 'strerror', None) or fault}") from fault
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if as_user_ids:
        return [person_of(line) for line in lines]
    for number, line in enumerate(lines, start=1):
        if not _PERSON.fullmatch(line):
            raise UnusablePeople(f"{name}, entry {number}: '{line[:40]}' is no person (22 characters); --user-ids?")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/verify-draw",
        description="Recompute the order of a draw from its published seed and a list of people, and say whether the"
        " record of who was let in agrees. People are ordered by the first 50 bits of SHA-1 over SEED:PERSON, where a"
        " person is the 22 characters that stand for a user id.",
        epilog="exit codes: 0 the record agrees, 1 it does not, 2 misused, or there is nothing to check (yet)",
    )
    parser.add_argument("concert", metavar="CONCERT", type=concert_id, help="the concert's id")
    parser.add_argument("--people", metavar="FILE", help="who took part, one a line, - for standard input (default: who"
                        " was let in by the draw)")  # fmt: skip
    parser.add_argument("--user-ids", action="store_true", help="FILE has user ids")
    parser.add_argument("--seed-hash", metavar="HEX", type=_sha256, help="the seed's SHA-256 as it was published before"
                        " the opening")  # fmt: skip
    people = whole_number(0, _SHOWN_MAX, "is no number of people")
    parser.add_argument("--show", metavar="N", type=people, default=_SHOWN, help="list the first N (default"
                        " %(default)s)")  # fmt: skip
    return parser


def _sha256(text: str) -> str:
    if _SHA256.fullmatch(text):
        return text.lower()
    raise argparse.ArgumentTypeError(f"'{text}' is no SHA-256 (64 hexadecimal digits)")
