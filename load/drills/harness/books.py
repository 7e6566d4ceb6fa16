"""What the payment firms' own books say under a drill."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Literal

from booking.payment.books import read_book
from drills.harness.watch import FIRMS
from encore_stack.instance import Instance


@dataclass(frozen=True, slots=True)
class Movement:
    """A charge or a refund in a firm's book. ``at`` is RFC 3339 UTC, so it sorts."""

    firm: str
    kind: Literal["charge", "refund"]
    key: str
    order_id: str
    at: str


def movements(instance: Instance) -> list[Movement]:
    """Every movement of money in the firms' books. Raises BookUnreadable."""
    return [
        Movement(firm, entry.kind, entry.key, entry.order_id, entry.at)
        for firm in FIRMS
        for page in read_book(instance.url(firm))
        for entry in page
    ]


def charged_twice(books: Iterable[Movement]) -> list[str]:
    """The orders for which at some moment more than one charge was taken and not given back."""
    found = []
    ordered = sorted(books, key=lambda one: (one.order_id, one.at, one.kind == "charge"))
    for order_id, of_order in groupby(ordered, key=lambda one: one.order_id):
        charges = accumulate(1 if one.kind == "charge" else -1 for one in of_order)
        if max(charges) > 1:
            found.append(order_id)
    return found
