"""What must be true when everybody has paid: the firms' books, the database and what people were told agree."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import accumulate, chain
from typing import NamedTuple

from booking.operations.audit import Verdict
from booking.payment.books import BookEntry, read_book
from booking.platform.postgres import primary
from support.gateways import SimulatedGateway
from support.payers import Payer
from support.step_processes import Asked

Wrongs = dict[str, list[str]]
"""What is wrong, by kind; empty: nothing."""

_RESERVATIONS = """
select r.id::text, r.status, r.total from reservation r where r.id::text = any (cast(:ids as text[]))
"""
_PAYMENTS = """
select p.id::text, p.reservation_id::text, p.status, extract(epoch from coalesce(p.captured_at, p.settled_at))::float
from payment p where p.reservation_id::text = any (cast(:ids as text[]))
"""
_TOLD_TWICE = """
select reservation_id::text, type, count(*) from outbox
where reservation_id::text = any (cast(:ids as text[]))
  and type in ('reservation.confirmed', 'reservation.refunded', 'payment.refunding', 'payment.refunded')
group by reservation_id, type having count(*) > 1
"""


class Phase(NamedTuple):
    """A firm was in a mode from one moment to another."""

    firm: str
    mode: str
    from_s: float
    until_s: float


def wrongs(payers: Sequence[Payer], firms: Iterable[SimulatedGateway], audit: Callable[[], Verdict]) -> Wrongs:
    """All that is wrong with what these people did, when nothing is pending any more."""
    ids = [payer.reservation_id for payer in payers if payer.reservation_id]
    reservations = {row[0]: (row[1], row[2]) for row in primary().rows(_RESERVATIONS, ids=ids)}
    payments = {row[0]: row[2] for row in primary().rows(_PAYMENTS, ids=ids)}
    books = books_of(firms)
    found: dict[str, list[str]] = defaultdict(list)
    for invariant, findings in audit().violations.items():
        found[invariant] += [f"{subject} {fault}" for subject, fault in findings]
    for order_id in {*reservations, *books}:
        charged, at_most = net(books[order_id])
        status, total = reservations.get(order_id, ("unknown", at_most))
        if charged != (total if status == "confirmed" else 0):
            found["money"].append(f"{order_id} is {status} for {total}, the books hold {charged}: {books[order_id]}")
        if at_most > total:
            found["charged twice"].append(f"{order_id} for {total} was charged {at_most} at once: {books[order_id]}")
    for payer in payers:
        found["answers"] += [f"{payer.name} ({payer.habit}): {wrong}" for wrong in payer.wrong]
        who = f"{payer.name} ({payer.habit}), reservation {payer.reservation_id}"
        became = reservations[payer.reservation_id][0] if payer.reservation_id else payer.status
        if became != payer.status and (payer.status, became) != ("held", "expired"):  # a hold lapses with time
            found["told otherwise"].append(f"{who}: was told {payer.status} and is {became}")
        for told in payer.told:
            became = payments[told.payment_id].replace("refunding", "refunded")
            if told.status != became and not (told.status == "captured" and became == "refunded" and payer.gave_back):
                found["told otherwise"].append(f"{who}: was told {told}, it is {became}")
    found["told twice"] += map(str, primary().rows(_TOLD_TWICE, ids=ids))
    return {kind: details for kind, details in found.items() if details}


def books_of(firms: Iterable[SimulatedGateway]) -> dict[str, list[BookEntry]]:
    """What the firms together have of each order, in the order of time."""
    books: dict[str, list[BookEntry]] = defaultdict(list)
    for firm in firms:
        for entry in chain.from_iterable(read_book(firm.panel_url)):
            books[entry.order_id].append(entry)
    for entries in books.values():
        entries.sort(key=lambda entry: (entry.at, entry.kind == "charge"))  # in one millisecond, refunds came first
    return books


def net(entries: Iterable[BookEntry]) -> tuple[int, int]:
    """What of an order is charged at the end, and the most that was at any moment."""
    moves = (entry.amount if entry.kind == "charge" else -entry.amount for entry in entries)
    sums = list(accumulate(moves, initial=0))
    return sums[-1], max(sums)


def refund_all(firms: Iterable[SimulatedGateway]) -> None:
    """Send all money back that lies at the firms, under whatever key."""
    for firm in firms:
        left: Counter[str] = Counter()
        for entry in chain.from_iterable(read_book(firm.panel_url)):
            left[entry.key] += entry.amount if entry.kind == "charge" else -entry.amount
        for key in +left:
            firm.panel.post(f"v1/payments/{key}/cancel").raise_for_status()


def killed_between_charge_and_record(payers: Sequence[Payer], firms: Iterable[SimulatedGateway]) -> int:
    """How many requests to pay ended without an answer after a firm took the money and before that was recorded."""
    books = books_of(firms)
    ids = [payer.reservation_id for payer in payers if payer.reservation_id]
    recorded = {row[0]: row[3] for row in primary().rows(_PAYMENTS, ids=ids)}
    lost = [each for payer in payers for each in payer.lost]
    return sum(
        any(
            entry.kind == "charge"
            and each.from_s <= datetime.fromisoformat(entry.at).timestamp() <= each.until_s < recorded[entry.key]
            for entry in books[each.reservation_id]
        )
        for each in lost
    )


def felt(phases: Sequence[Phase], asked: Sequence[Asked]) -> Counter[tuple[str, str]]:
    """How often a firm that was in a mode answered how: only what was asked and answered within the mode."""
    return Counter(
        (phase.mode, each.outcome)
        for each in asked
        for phase in phases
        if phase.firm == each.gateway and phase.from_s <= each.from_s and each.until_s <= phase.until_s
    )
