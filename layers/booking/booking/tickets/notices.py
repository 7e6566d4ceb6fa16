"""Tell people what became of their reservations: a row of ``notice`` for each turn, sent at least once, recorded once.

The rows are written with the ticket, in the transaction that the event acts in. They are sent after that commit and
then marked, so a sender that dies in between sends once more; whoever receives a notice knows it by its ``event_id``.
"""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import msgspec
from aws_lambda_powertools.metrics import MetricUnit

from booking.platform.postgres import Row, primary
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import logger, measure

_BATCH_SIZE_MAX = 500
_UNSENT = read_text(__package__, "sql/unsent_notices.sql")
_MARK = read_text(__package__, "sql/mark_notices.sql")

_WORDS = {
    "payment.pending": "Your payment is not through yet. Your seats stay yours meanwhile: wait, or cancel.",
    "payment.declined": "Your payment was declined. Nothing was taken.",
    "payment.refunding": "Your seats were gone when your payment came. The money goes back to you.",
    "payment.refunded": "Your money has gone back to you.",
    "reservation.confirmed": "Your seats are yours.",
    "reservation.cancelled": "Your reservation is cancelled.",
    "reservation.expired": "Your seats were not paid for in time and have gone back on sale.",
    "reservation.refunded": "Your reservation is given back. The money goes back to you.",
}


_CALLED_OFF = "Your payment was called off. If money had been taken, it has gone back to you."
"""Of a payment that its firm cancelled by key: it may have been a charge."""


class Notice(msgspec.Struct, frozen=True):
    """What one person is told."""

    event_id: str
    created_at: str
    person: str
    reservation_id: str
    kind: str
    message: str


class Notifier(Protocol):
    """The way to the people."""

    def send(self, notices: Sequence[Notice]) -> list[str]:
        """Send them; the ``event_id`` of each that was taken for sure. Never raises for what could not be sent."""


class CannotTell(RuntimeError):
    """No notice of a whole batch could be sent."""


def send_notices() -> int:
    """Send what has not been sent, batch after batch; returns how many. What could not be sent is tried again.

    Raises CannotTell, DatabaseAway.
    """
    sent_in_all = 0
    while rows := primary().rows(_UNSENT, limit=_BATCH_SIZE_MAX):
        notices = [_notice(row) for row in rows]
        sent = notifier(settings().notices_url).send(notices)
        primary().rows(_MARK, tried=[notice.event_id for notice in notices], sent=sent)
        measure("NoticesSent", len(sent), MetricUnit.Count)
        sent_in_all += len(sent)
        if len(sent) < len(notices):
            measure("NoticesUnsent", len(notices) - len(sent), MetricUnit.Count)
            logger().error("notices not sent, they are tried again", number=len(notices) - len(sent))
            if not sent:
                raise CannotTell(f"none of {len(notices)} notices could be sent")
            break
        if len(rows) < _BATCH_SIZE_MAX:
            break
    return sent_in_all


@cache
def notifier(url: str) -> Notifier:
    """The notifier of ``notices_url``: an SNS topic's ARN, or the stand-in's folder. Raises ValueError."""
    if url.startswith("arn:"):
        from booking.tickets.sns import SnsNotifier

        return SnsNotifier(url)
    if url.startswith("file://"):
        from booking.tickets.notice_file import FileNotifier

        return FileNotifier(url)
    raise ValueError(f"ENCORE_NOTICES_URL must be an SNS topic's ARN or file:///…: {url!r}")


def _notice(row: Row) -> Notice:
    event_id, created_at, person, reservation_id, kind, data, ticket_code = row
    facts = msgspec.json.decode(data)
    seats = facts.get("seats", [])
    called_off = kind == "payment.declined" and facts.get("outcome") == "cancelled"
    words = [_CALLED_OFF if called_off else _WORDS.get(str(kind), str(kind))]
    if seats:
        words.append(f"{'Seats' if len(seats) > 1 else 'Seat'} {', '.join(map(str, seats))}.")
    if kind == "reservation.confirmed" and ticket_code:
        words.append(f"Ticket {ticket_code}.")
    return Notice(event_id, created_at, person, reservation_id, kind, " ".join(words))
