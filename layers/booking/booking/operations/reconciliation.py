"""Reconciliation: every payment held against the payment firms' own books, and what may safely be healed is healed.

The books are copied first, each from where its copy ends, and then compared with all payments in one statement. A
payment is committed before its gateway is asked, and each gateway is asked under the payment's id: so a charge says
which payment it is of, and a charge without one was made for a commit that is lost.

Healed is what can only become right by it: a payment that is open here is looked at by the settling job at once, and
money that lies at a firm for nothing goes back under its key. Nobody gets or loses a ticket by it: people do that.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
from aws_lambda_powertools.metrics import MetricUnit

from booking.operations.audit import GRACE_S
from booking.payment.books import BookEntry, BookUnreadable, book_urls, read_book
from booking.payment.gateways import Outcome, gateway
from booking.platform.postgres import Server
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import logger, measure, start_correlation

STATEMENT_TIMEOUT_MS = 120_000
"""A whole sale is compared in one statement."""

LOST_REFUNDS_MAX = 20
"""Charges without a payment that one reconciliation refunds. Of more it refunds none: a wrong database is likelier than
so many lost commits, and would have everybody's money sent back."""

_OVERLAP = 1_000
"""Entries read once more, for a firm whose entries do not come in the order of their numbers."""
_PAYMENT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_COPY_BOOK = read_text(__package__, "sql/reconciliation/copy_book.sql")
_LAST_COPIED = read_text(__package__, "sql/reconciliation/last_copied.sql")
_DIFFERENCES = read_text(__package__, "sql/reconciliation/differences.sql")
_CHECK_NOW = read_text(__package__, "sql/reconciliation/check_now.sql")

Progress = Callable[[str], None]


class Kind(StrEnum):
    """What is wrong with one key at one gateway."""

    NOT_RECORDED = "captured at the firm, still open here"
    TAKEN_FOR_NOTHING = "captured at the firm, not here"
    CHARGED_TWICE = "one reservation charged more than once"
    LOST_PAYMENT = "charge of a payment that is not known here"
    UNKNOWN_KEY = "charge under a key that is none of ours"
    NOT_CHARGED = "captured here, not at the firm"
    REFUNDED_AT_FIRM = "refunded at the firm, captured here"
    REFUND_OWED = "refund owed, not at the firm"
    REFUND_NOT_RECORDED = "refunded at the firm, still owed here"
    ELSEWHERE = "charged at another firm than the payment's"
    AMOUNT_DIFFERS = "amount or currency differ"
    OTHER_RESERVATION = "charged for another reservation"


class Remedy(StrEnum):
    """What reconciliation may do by itself."""

    LOOK_NOW = "the settling job is to look now"
    SEND_BACK = "the money goes back under this key"


class State(StrEnum):
    """What has become of a difference."""

    IN_FLIGHT = "in flight"
    HEALED = "healed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Facts:
    """A row of differences.sql: what a firm's book says of a key, and what is known of it here (None: nothing)."""

    gateway: str
    key: str
    order_id: str
    charged: int
    refunded: int
    book_currency: str
    charges_of_order: int
    payment_gateway: str | None
    reservation_id: str | None
    amount: int | None
    currency: str | None
    status: str | None
    in_flight: bool

    @property
    def left_there(self) -> int:
        """What the firm has of it."""
        return self.charged - self.refunded


@dataclass(slots=True)
class Difference:
    """One key of one gateway where the firm's book and the payments do not agree."""

    facts: Facts
    kind: Kind
    remedy: Remedy | None
    state: State


@dataclass(slots=True)
class Reconciliation:
    """What was read, what differs, and which firm's books could not be read (by name, with the reason)."""

    entries_new: dict[str, int] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)

    def of(self, state: State) -> list[Difference]:
        """The differences of which this has become."""
        return [difference for difference in self.differences if difference.state is state]


def reconcile_payments() -> dict[str, Any]:
    """Reconcile everything, heal what may be healed, and say so in log and metrics: the hourly job's work.

    Raises DatabaseAway.
    """
    start_correlation(None)
    with closing(Server(settings().database_url, statement_timeout_ms=STATEMENT_TIMEOUT_MS)) as server:
        done = reconcile(server, book_urls(), heal=True)
    for name, fault in done.unread.items():
        logger().error("book unread", gateway=name, reason=fault)
    for difference in done.of(State.LEFT) + done.of(State.HEALED):
        logger().error("books differ", state=difference.state, kind=difference.kind, **_logged(difference.facts))
    left, healed, in_flight = (len(done.of(state)) for state in (State.LEFT, State.HEALED, State.IN_FLIGHT))
    measure("ReconciliationDifferences", left, MetricUnit.Count)
    measure("ReconciliationHealed", healed, MetricUnit.Count)
    measure("ReconciliationBooksUnread", len(done.unread), MetricUnit.Count)
    report = {
        "entries_new": done.entries_new,
        "unread": sorted(done.unread),
        "differences": left,
        "healed": healed,
        "in_flight": in_flight,
    }
    logger().info("payments reconciled", extra=report)
    return report


def reconcile(
    server: Server, urls: Mapping[str, str], *, heal: bool, progress: Progress = lambda _: None
) -> Reconciliation:
    """Copy the books at ``urls`` (by gateway), compare them with the payments, and with ``heal`` do what is safe.

    ``server`` must be the primary. A book that cannot be read is left out, with all of its gateway's payments; see
    ``unread``. ``progress`` is told in words what is being done. Raises DatabaseAway.
    """
    done = Reconciliation()
    for name, url in urls.items():
        try:
            done.entries_new[name] = copy_book(server, name, url, progress)
        except BookUnreadable as fault:
            done.unread[name] = str(fault)
    progress("comparing with the payments")
    done.differences = find_differences(server, done.entries_new)
    if heal:
        _heal(server, done.differences)
    return done


def copy_book(server: Server, name: str, url: str, progress: Progress = lambda _: None) -> int:
    """Copy what is new in a gateway's book; how many entries. What is copied stays, whenever this ends.

    Raises BookUnreadable, also when the newest entry that was copied is no longer in the book: then the copy is of
    another book, and nothing may be concluded from it. Raises DatabaseAway.
    """
    [*newest] = server.rows(_LAST_COPIED, gateway=name)
    seq, *rest = newest[0] if newest else (0,)
    is_known = not newest
    copied = 0
    for page in read_book(url, max(0, seq - _OVERLAP)):
        is_known = is_known or any(entry.seq == seq and [entry.key, entry.kind] == rest for entry in page)
        if not is_known:
            break
        copied += _copy(server, name, page)
        progress(f"{copied:,} new entries in the book of {name}")
    if not is_known:
        raise BookUnreadable(f"the book of {name} no longer has its entry {seq} as it was: is it another one?")
    return copied


def find_differences(server: Server, gateways: Collection[str]) -> list[Difference]:
    """Where the copied books of these gateways and their payments do not agree. Only looks. Raises DatabaseAway."""
    rows = server.rows(_DIFFERENCES, gateways=list(gateways), grace_s=GRACE_S)
    return [judge(Facts(*row)) for row in rows]


def judge(facts: Facts) -> Difference:
    """What is wrong, and what may be done about it without asking a person."""
    kind, remedy = _judge_unknown(facts) if facts.status is None else _judge_known(facts)
    if remedy is Remedy.SEND_BACK and facts.charges_of_order > 1:
        kind = Kind.CHARGED_TWICE
    return Difference(facts, kind, remedy, State.IN_FLIGHT if facts.in_flight else State.LEFT)


def _judge_unknown(facts: Facts) -> tuple[Kind, Remedy | None]:
    if _PAYMENT_ID.fullmatch(facts.key):
        return Kind.LOST_PAYMENT, Remedy.SEND_BACK
    return Kind.UNKNOWN_KEY, None


def _judge_known(facts: Facts) -> tuple[Kind, Remedy | None]:
    if facts.payment_gateway != facts.gateway:
        # Its own gateway may have the money too, and then this is too much; else this may be all there is.
        is_too_much = facts.charges_of_order > 1 and facts.status != "pending"
        return Kind.ELSEWHERE, Remedy.SEND_BACK if is_too_much else None
    if facts.charged and facts.order_id != facts.reservation_id:
        return Kind.OTHER_RESERVATION, None
    if facts.charged and (facts.charged, facts.book_currency) != (facts.amount, facts.currency):
        return Kind.AMOUNT_DIFFERS, None
    match facts.status:
        case "captured":
            return (Kind.REFUNDED_AT_FIRM if facts.refunded else Kind.NOT_CHARGED), None
        case "refunding":
            return (Kind.REFUND_OWED if facts.left_there else Kind.REFUND_NOT_RECORDED), Remedy.LOOK_NOW
        case "refunded":
            return Kind.REFUND_OWED, Remedy.SEND_BACK
        case "pending":
            return Kind.NOT_RECORDED, Remedy.LOOK_NOW
        case _:
            return Kind.TAKEN_FOR_NOTHING, Remedy.SEND_BACK


def send_back(gateway_name: str, key: str) -> bool:
    """Send back what a gateway has taken under a key; whether it has confirmed it. Safe to repeat."""
    return gateway(gateway_name).cancel(key) is Outcome.CANCELLED


def _heal(server: Server, differences: Sequence[Difference]) -> None:
    left = [difference for difference in differences if difference.state is State.LEFT]
    to_look_at = {each.facts.key: each for each in left if each.remedy is Remedy.LOOK_NOW}
    for (key,) in server.rows(_CHECK_NOW, payment_ids=list(to_look_at)):
        to_look_at[key].state = State.HEALED
    for difference in _to_send_back(left):
        if send_back(difference.facts.gateway, difference.facts.key):
            difference.state = State.HEALED


def _to_send_back(left: Iterable[Difference]) -> Iterator[Difference]:
    candidates = [each for each in left if each.remedy is Remedy.SEND_BACK]
    lost = sum(each.facts.status is None for each in candidates)
    return (each for each in candidates if each.facts.status is not None or lost <= LOST_REFUNDS_MAX)


def _copy(server: Server, name: str, page: Sequence[BookEntry]) -> int:
    return len(server.rows(_COPY_BOOK, gateway=name, entries=msgspec.json.encode(page).decode()))


def _logged(facts: Facts) -> dict[str, Any]:
    return {
        "gateway": facts.gateway,
        "key": facts.key,
        "reservation_id": facts.order_id,
        "charged": facts.charged,
        "refunded": facts.refunded,
        "payment_status": facts.status,
    }
