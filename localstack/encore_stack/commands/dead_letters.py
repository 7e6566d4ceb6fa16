"""`scripts/dead-letters`: what consumers could not apply: look at it, send it back, give it up."""

import argparse
import base64
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from booking.events.dead_letters import (
    STATES,
    NoDeadLetter,
    discard,
    find_dead_letter,
    list_dead_letters,
    redrive,
)
from encore_stack.arguments import whole_number
from encore_stack.instance import Instance
from encore_stack.operators import exit_code, operator_name
from encore_stack.process_settings import adopt_settings

_LIMIT = 100
_LIMIT_MAX = 10_000
_REASON_LENGTH_MAX = 500
_TEXT_LENGTH_MAX = 4_000


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 done, 1 there is no such dead letter, or the database is away, 2 misused."""
    options = _parser().parse_args(arguments)
    adopt_settings(Instance.load_existing())
    verbs: dict[str, Callable[[argparse.Namespace], int]] = {
        "list": _list,
        "show": _show,
        "redrive": _redrive,
        "discard": _discard,
    }
    return exit_code(
        lambda: verbs[options.verb](options),
        {NoDeadLetter: "scripts/dead-letters list --state all shows them"},
    )


def _list(options: argparse.Namespace) -> int:
    letters = list_dead_letters(None if options.state == "all" else options.state, options.limit)
    if options.json:
        print(_as_json(letters))
    elif not letters:
        print("no dead letters" + ("" if options.state == "all" else f" that are {options.state} (--state all: any)"))
    else:
        print("\n".join(as_lines(letter) for letter in letters))
    return 0


def _show(options: argparse.Namespace) -> int:
    letter = find_dead_letter(options.id)
    print(_as_json(letter) if options.json else as_text(letter))
    return 0


def _redrive(options: argparse.Namespace) -> int:
    sent = redrive(None if options.all else options.ids, options.limit)
    left = sorted(set(options.ids) - set(sent))
    if options.json:
        print(_as_json({"redriven": sent, "left": left}))
    else:
        print(f"sent back: {', '.join(map(str, sent)) or 'none'}")
    if left:
        print(
            f"error: not sent back: {', '.join(map(str, left))}: over the limit ({options.limit}), or not waiting"
            " (scripts/dead-letters show ID says what became of one)",
            file=sys.stderr,
        )
        return 1
    return 0


def _discard(options: argparse.Namespace) -> int:
    discard(options.id, options.reason, operator_name())
    print(_as_json(find_dead_letter(options.id)) if options.json else f"discarded: {options.id}")
    return 0


def as_lines(letter: dict[str, Any]) -> str:
    """One dead letter in two lines."""
    about = letter["type"] or "unreadable"
    of = f" of reservation {letter['reservation_id']}" if letter["reservation_id"] else ""
    kind = "transient, " if letter["transient"] else ""
    return (
        f"{letter['id']:>6}  {letter['last_seen_at']}  {_state(letter)}  {about}{of}  at {letter['consumer']}\n"
        f"        {kind}{letter['attempts']} attempts: {letter['error']}"
    )


def as_text(letter: dict[str, Any]) -> str:
    """All of one, with its record."""
    position = f"{letter['topic']}, partition {letter['partition']}, offset {letter['offset']}"
    lines = [
        as_lines(letter),
        f"        from {position}",
        f"        set aside first {letter['first_seen_at']}, sent back {letter['redrives']} times"
        + (f", last {letter['redriven_at']}" if letter["redriven_at"] else ""),
        f"        correlation id {letter['correlation_id']}   (scripts/logs -c {letter['correlation_id']})",
        f"        key    {_readable(letter['key'])}",
        f"        value  {_readable(letter['value'])}",
    ]
    return "\n".join(lines)


def _state(letter: dict[str, Any]) -> str:
    if letter["state"] == "discarded":
        return f"discarded by {letter['discarded_by']}: {letter['discard_reason']}"
    if letter["applied_at"]:
        return f"{letter['state']}, took effect {letter['applied_at']}"
    return str(letter["state"])


def _readable(encoded: str | None) -> str:
    if encoded is None:
        return "none"
    data = base64.b64decode(encoded)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = repr(data)
    shown = text if text.isprintable() else repr(text)
    return shown if len(shown) <= _TEXT_LENGTH_MAX else f"{shown[:_TEXT_LENGTH_MAX]}… ({len(data)} bytes)"


def _as_json(shown: object) -> str:
    return msgspec.json.format(msgspec.json.encode(shown), indent=2).decode()


def _reason(text: str) -> str:
    if not text.strip() or len(text) > _REASON_LENGTH_MAX or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be 1 to {_REASON_LENGTH_MAX} characters")
    return text.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/dead-letters",
        description="Records of the reservation events that a consumer could not apply, again and again. They were set"
        " aside, so that the others go on; each is kept as it stood, here and in the dead-letter topic.",
        epilog="exit codes: 0 done, 1 there is no such dead letter, or not all were sent back, or the database is away,"
        " 2 misused. every_minute_redrive_dead_letters sends back by itself what may only be a matter of time.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    letter_id = whole_number(1, 2**63 - 1, "is no dead letter's id")
    limit = whole_number(1, _LIMIT_MAX, f"is no number from 1 to {_LIMIT_MAX:,}")

    def add(name: str, words: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=words, description=words)
        verb.add_argument("--json", action="store_true", help="for machines")
        return verb

    listing = add("list", "the newest, the newest last")
    listing.add_argument("--state", choices=(*STATES, "all"), default="waiting", help="only these (%(default)s)")
    listing.add_argument("--limit", metavar="N", type=limit, default=_LIMIT, help="how many (%(default)s)")
    add("show", "one, with its record").add_argument("id", metavar="ID", type=letter_id)
    back = add("redrive", "send back to the topic that it came from, for the consumer that failed it")
    which = back.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", metavar="ID", type=letter_id, nargs="*", default=[])
    which.add_argument("--all", action="store_true", help="all that wait, the oldest first")
    back.add_argument("--limit", metavar="N", type=limit, default=_LIMIT, help="never more than this (%(default)s)")
    away = add("discard", "give one up: it never takes effect at its consumer")
    away.add_argument("id", metavar="ID", type=letter_id)
    away.add_argument("--reason", metavar="TEXT", type=_reason, required=True, help="why; kept with it")
    return parser
