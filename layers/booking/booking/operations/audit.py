"""The audit: the invariants of a sale, checked from committed data, the gateways' own books and the topic.

It believes nothing that the booking code says of itself: it reads the tables, the books and Kafka. Each invariant is
one statement and so one snapshot. Money is compared with books that are read after the snapshot, so work that ended in
between can look wrong for a moment: a suspicion counts only if a second look finds it again.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from booking.operations.topic import PublishedEvent, TopicUnreadable
from booking.payment.books import BookUnreadable, read_book
from booking.platform.postgres import Server
from booking.platform.redis import RedisAway
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.queue.admissions import turns_to_copy
from booking.sales import SALES_CONSUMER
from booking.tickets import CONSUMERS, TICKET_CONSUMER

GRACE_S = 60
_AUDIT_STATEMENT_TIMEOUT_MS = 120_000
_SETTLE_TICK_S = 0.2

Finding = tuple[str, str]
"""What is wrong (a seat, a reservation, a person, an order) and how."""


class AuditImpossible(RuntimeError):
    """The audit could not look at everything it must look at; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Invariant:
    """One rule, by its number in the design, and the file of its statement (None: ``Auditor`` has a method for it)."""

    name: str
    rule: str
    sql: str | None


INVARIANTS = (
    Invariant("I1", "a seat belongs to at most one live reservation", "i1_one_live_reservation_per_seat"),
    Invariant("I2", "confirmed means paid once, in full, and sold", "i2_confirmed_is_paid_and_sold"),
    Invariant("I3", "the gateways' books agree with the reservations", None),
    Invariant("I4", "nobody is let in over the capacity", "i4_nobody_over_the_capacity"),
    Invariant("I5", "nobody is let in before an earlier place", None),
    Invariant("I6", "every event reaches Kafka and acts exactly once", None),
    Invariant("I7", "the seat ledger, replayed, gives the seats", "i7_ledger_replays"),
    Invariant("I8", "no seat is held past its hard cap", "i8_no_hold_past_its_cap"),
    Invariant("I9", "nobody has more seats than the limit", "i9_nobody_over_the_limit"),
)


@dataclass(slots=True)
class Verdict:
    """What an audit found: violations by invariant, and what is still in flight by kind."""

    violations: dict[str, list[Finding]]
    in_flight: dict[str, int]
    checked: dict[str, int] = field(default_factory=dict)
    """How much was looked at: reservations, payments, ledger entries, book entries."""

    @property
    def passed(self) -> bool:
        """Whether no invariant is broken."""
        return not any(self.violations.values())

    @property
    def settled(self) -> bool:
        """Whether nothing is in flight."""
        return not any(self.in_flight.values())


class Auditor:
    """Reads one deployment: its primary database, its gateways' books and its topic.

    ``read_topic`` gives the events that Kafka has, partition by partition, of at least so many last seconds; without it
    the outbox is believed when it says that an event was published. ``without`` names invariants that are not looked
    at: I6 where no relay or consumer works.
    """

    def __init__(
        self,
        database_url: str,
        gateway_urls: Iterable[str],
        *,
        hold_cap_s: int | None = None,
        read_topic: Callable[[int], Iterable[Iterable[PublishedEvent]]] | None = None,
        without: Collection[str] = (),
    ) -> None:
        self._server = Server(database_url, statement_timeout_ms=_AUDIT_STATEMENT_TIMEOUT_MS)
        self._gateway_urls = tuple(gateway_urls)
        self._hold_cap_s = hold_cap_s or settings().hold_cap_s
        self._read_topic = read_topic
        self._invariants = [invariant for invariant in INVARIANTS if invariant.name not in without]

    def audit(self) -> Verdict:
        """Check every invariant. Raises AuditImpossible when the database or a book cannot be read."""
        verdict = self._look()
        if verdict.passed:
            return verdict
        again = self._look()
        confirmed = {
            name: [finding for finding in found if finding in again.violations[name]]
            for name, found in verdict.violations.items()
        }
        return Verdict(confirmed, again.in_flight, again.checked)

    def settle(self, timeout_s: float, progress: Callable[[Mapping[str, int]], None]) -> bool:
        """Wait until nothing is in flight, at most ``timeout_s``; returns whether that came to pass."""
        deadline_s = time.monotonic() + timeout_s
        while any((waiting := self._in_flight()).values()):
            if time.monotonic() >= deadline_s:
                return False
            progress(waiting)
            time.sleep(_SETTLE_TICK_S)
        return True

    def close(self) -> None:
        """Give the connection back."""
        self._server.close()

    def _look(self) -> Verdict:
        violations = {invariant.name: list(self._violations(invariant)) for invariant in self._invariants}
        return Verdict(violations, self._in_flight(), self._checked())

    def _violations(self, invariant: Invariant) -> Iterator[Finding]:
        if invariant.sql is None:
            yield from {"I3": self._money, "I5": self._order, "I6": self._events}[invariant.name]()
            return
        sql = read_text(__package__, f"sql/audit/{invariant.sql}.sql")
        parameters: dict[str, Any] = {"hold_cap_s": self._hold_cap_s} if ":hold_cap_s" in sql else {}
        for subject, fault in self._server.rows(sql, **parameters):
            yield str(subject), str(fault)

    def _money(self) -> Iterator[Finding]:
        expected = self._server.rows(read_text(__package__, "sql/audit/i3_reservations_and_money.sql"), grace_s=GRACE_S)
        books = self._books()
        for reservation_id, owed, status, in_flight in expected:
            taken = books.pop(reservation_id, 0)
            if taken != owed and not in_flight:
                yield f"reservation {reservation_id}", f"is {status}: the books should hold {owed}, they hold {taken}"
        for order_id, taken in books.items():
            if taken and not self._knows(order_id):
                yield f"order {order_id}", f"the books hold {taken} for it, and there is no such reservation"

    def _books(self) -> Counter[str]:
        """What the gateways together have taken for each order."""
        books: Counter[str] = Counter()
        try:
            for entry in chain.from_iterable(page for url in self._gateway_urls for page in read_book(url)):
                books[entry.order_id] += entry.amount if entry.kind == "charge" else -entry.amount
        except BookUnreadable as fault:
            raise AuditImpossible(str(fault)) from fault
        return books

    def _order(self) -> Iterator[Finding]:
        rows = self._server.rows(read_text(__package__, "sql/audit/i5_admissions.sql"))
        for _, line in groupby(rows, key=itemgetter(0, 1)):
            yield from overtakings(Admission(*row[2:]) for row in line)

    def _events(self) -> Iterator[Finding]:
        window_s = settings().outbox_kept_s
        for subject, fault in self._server.rows(
            read_text(__package__, "sql/audit/i6_events_act_once.sql"),
            grace_s=GRACE_S,
            window_s=window_s,
            consumers=list(CONSUMERS),
            ticket_consumer=TICKET_CONSUMER,
            sales_consumer=SALES_CONSUMER,
        ):
            yield str(subject), str(fault)
        if self._read_topic:
            # Before the topic is read: what is marked by then is there.
            marked = self._server.rows(read_text(__package__, "sql/audit/published_events.sql"), window_s=window_s)
            try:
                partitions = self._read_topic(window_s)
            except TopicUnreadable as fault:
                raise AuditImpossible(f"the topic cannot be read: {fault}") from fault
            yield from missing_or_overtaken({row[0]: (row[1], row[2]) for row in marked}, partitions)

    def _knows(self, order_id: str) -> bool:
        # Begun after the snapshot of the reservations, before the books were read.
        return bool(self._server.rows("select from payment where reservation_id::text = :order_id", order_id=order_id))

    def _in_flight(self) -> dict[str, int]:
        counts = self._counts("in_flight", grace_s=GRACE_S, consumers=list(CONSUMERS))
        with suppress(RedisAway):  # what a Redis that is away has not given is not on its way
            counts["turns to record"] += turns_to_copy()
        return counts

    def _checked(self) -> dict[str, int]:
        return self._counts("looked_at")

    def _counts(self, name: str, **parameters: Any) -> dict[str, int]:
        rows = self._server.rows(read_text(__package__, f"sql/audit/{name}.sql"), **parameters)
        return {str(kind): int(count) for kind, count in rows}


@dataclass(frozen=True, slots=True)
class Admission:
    """Somebody let in: by which place, as which number, and the number current when they (re-)entered the line."""

    pass_id: str
    number: int
    place: int
    entered_after: int


def overtakings(line: Iterable[Admission]) -> Iterator[Finding]:
    """Who was let in later than somebody with a later place, although they stood in the line then.

    ``line`` has the admissions of one line in the order of their numbers. Of those before an admission, the nearest one
    with a later place tells it all: whoever entered after that one entered after every earlier one too. They are on a
    stack whose places fall from bottom to top.
    """
    later_places: list[Admission] = []
    for admission in line:
        while later_places and later_places[-1].place <= admission.place:
            later_places.pop()
        if later_places and admission.entered_after < later_places[-1].number:
            first = later_places[-1]
            yield (
                f"admission {admission.pass_id}",
                f"has place {admission.place}; place {first.place} was let in before it, as {first.pass_id}",
            )
        later_places.append(admission)


def missing_or_overtaken(
    marked: Mapping[str, tuple[str, int]], partitions: Iterable[Iterable[PublishedEvent]]
) -> Iterator[Finding]:
    """Events that are marked as published and are not in the topic, or came after a later one of their reservation.

    ``marked``: reservation and number by event. What comes again is no fault, nor is what nobody knows: the outbox may
    have forgotten it, or a failover its commit.
    """
    seen: set[str] = set()
    for partition in partitions:
        newest: dict[str, int] = {}
        for event in partition:
            if event.event_id in seen or event.event_id not in marked:
                continue
            seen.add(event.event_id)
            if event.seq < newest.get(event.reservation_id, 0):
                yield (
                    f"event {event.event_id}",
                    f"number {event.seq} of reservation {event.reservation_id} came after number"
                    f" {newest[event.reservation_id]}",
                )
            newest[event.reservation_id] = max(event.seq, newest.get(event.reservation_id, 0))
    for event_id in marked.keys() - seen:
        reservation_id, seq = marked[event_id]
        yield (
            f"event {event_id}",
            f"number {seq} of reservation {reservation_id} is marked as published, and the topic does not have it",
        )
