"""`scripts/reconcile`: hold every payment against the payment firms' books, and say where they do not agree."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import groupby

import msgspec

from booking.operations.audit import GRACE_S
from booking.operations.reconciliation import (
    LOST_REFUNDS_MAX,
    STATEMENT_TIMEOUT_MS,
    Difference,
    Facts,
    Kind,
    Reconciliation,
    Remedy,
    State,
    reconcile,
)
from booking.payment.books import book_urls
from booking.platform.postgres import DatabaseAway, Server
from booking.platform.settings import settings
from encore_stack.instance import Instance
from encore_stack.process_settings import adopt_settings
from encore_stack.progress import Progress

_SHOWN_MAX = 10

_ADVICE = {
    Kind.NOT_RECORDED: "is every_minute_settle_payments running? scripts/logs settle shows it",
    Kind.TAKEN_FOR_NOTHING: "--heal sends the money back; the hourly job does",
    Kind.CHARGED_TWICE: "--heal sends back what is too much; the hourly job does",
    Kind.LOST_PAYMENT: f"--heal sends the money back, if there are no more than {LOST_REFUNDS_MAX} such charges:"
    " is this the right database? scripts/after-failover sends back all",
    Kind.UNKNOWN_KEY: "not made by this shop's code: ask the firm who made it",
    Kind.NOT_CHARGED: "the ticket is not paid for: look for the charge at the firm, else take the ticket back",
    Kind.REFUNDED_AT_FIRM: "the ticket is still good: give the reservation back (DELETE), or have it paid anew",
    Kind.REFUND_OWED: "--heal asks the firm again; the hourly job does",
    Kind.REFUND_NOT_RECORDED: "is every_minute_settle_payments running? scripts/logs settle shows it",
    Kind.ELSEWHERE: "find out which firm has the money: of two charges, the one that is not the payment's is too much",
    Kind.AMOUNT_DIFFERS: "the firm took another sum than it was asked for: settle it with the firm",
    Kind.OTHER_RESERVATION: "the firm booked it for another order than it was asked for: settle it with the firm",
}


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 they agree, 1 there are differences, 2 it could not be found out."""
    options = _parser().parse_args(arguments)
    adopt_settings(Instance.load_existing())
    try:
        with closing(Server(settings().database_url, statement_timeout_ms=STATEMENT_TIMEOUT_MS)) as server:
            found = reconcile(server, book_urls(), heal=options.heal, progress=Progress(quiet=options.json))
    except DatabaseAway as fault:
        print(f"error: {fault}; is the stack up? see scripts/status", file=sys.stderr)
        return 2
    print(as_json(found) if options.json else as_text(found))
    for name, reason in found.unread.items():
        print(f"error: {reason}; the payments at {name} are not looked at; see scripts/status", file=sys.stderr)
    if found.unread:
        return 2
    return 1 if found.of(State.LEFT) else 0


def as_text(found: Reconciliation) -> str:
    """What differs, by kind and with what a person may do; what was healed; what is in flight."""
    lines = []
    left = sorted(found.of(State.LEFT), key=lambda each: list(Kind).index(each.kind))
    for kind, alike in groupby(left, key=lambda each: each.kind):
        lines += [f"{kind}", *_listed(list(alike)), f"  -> {_ADVICE[kind]}"]
    for state in (State.HEALED, State.IN_FLIGHT):
        if those := found.of(state):
            what = {State.HEALED: "healed", State.IN_FLIGHT: f"in flight (younger than {GRACE_S} s, or paying)"}[state]
            lines += [what, *_listed(those)]
    read = ", ".join(f"{count:,} in the book of {name}" for name, count in found.entries_new.items()) or "none"
    counts = ", ".join(f"{len(found.of(state)):,} {state}" for state in (State.HEALED, State.IN_FLIGHT))
    lines.append(f"new entries: {read}; differences: {len(left):,} ({counts})")
    if not left and not found.unread:
        lines.append("the books and the payments agree")
    return "\n".join(lines)


def as_line(difference: Difference) -> str:
    """One difference: what the firm's book holds, and what is known here."""
    facts = difference.facts
    line = f"{facts.gateway}: {_at_the_firm(facts)} under {facts.key} for {facts.order_id}; {_here(facts)}"
    if facts.charges_of_order > 1:
        line += f"; that reservation has {facts.charges_of_order} charges"
    if difference.state is State.HEALED and difference.remedy:
        done = {Remedy.SEND_BACK: "sent back", Remedy.LOOK_NOW: Remedy.LOOK_NOW.value}[difference.remedy]
        line += f" ({done})"
    return line


def as_json(found: Reconciliation) -> str:
    """Everything, for machines."""
    report = {
        "entries_new": found.entries_new,
        "unread": found.unread,
        "differences": [
            {"kind": each.kind.name.lower(), "state": each.state, "words": as_line(each), **asdict(each.facts)}
            for each in found.differences
        ],
    }
    return msgspec.json.encode(report).decode()


def _listed(differences: Sequence[Difference]) -> list[str]:
    lines = [f"  {as_line(each)}" for each in differences[:_SHOWN_MAX]]
    hidden = len(differences) - _SHOWN_MAX
    return lines + ([f"  … and {hidden:,} more (--json shows all)"] if hidden > 0 else [])


def _at_the_firm(facts: Facts) -> str:
    if not facts.charged and not facts.refunded:
        return "nothing"
    sums = f"{facts.charged:,} {facts.book_currency} charged"
    return sums + (f", {facts.refunded:,} refunded" if facts.refunded else "")


def _here(facts: Facts) -> str:
    if facts.status is None:
        return "here there is no such payment"
    where = f" at {facts.payment_gateway}" if facts.payment_gateway != facts.gateway else ""
    whose = f" of reservation {facts.reservation_id}" if facts.reservation_id != facts.order_id else ""
    return f"here it is {facts.status}{where}, {facts.amount:,} {facts.currency}{whose}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/reconcile",
        description="Hold every payment against the payment firms' own books and say where they do not agree, with what"
        " to do. The books are read from where they were read to before. every_hour_reconcile_payments does the same"
        " and heals what is safe: it has open payments looked at now and sends back money that a firm has for nothing.",
        epilog="exit codes: 0 they agree (or all is healed, or in flight), 1 there are differences, 2 a book or the"
        " database could not be read",
    )
    parser.add_argument("--heal", action="store_true", help="also do what the hourly job does")
    parser.add_argument("--json", action="store_true", help="for machines, with every difference")
    return parser
