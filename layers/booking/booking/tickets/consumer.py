"""The consumer that issues tickets and notes what people are to be told. Each event acts once."""

import secrets
from collections.abc import Mapping
from typing import Any

from booking.events.consumer import Consumer, Envelope
from booking.platform.resources import read_text
from booking.queue import end_turn
from booking.seats import seats_changed
from booking.tickets import TICKET_CONSUMER

# Crockford's base 32: no letter that is read as a digit or spells a word.
_CODE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CODE_LENGTH = 12

_ISSUE = read_text(__package__, "sql/issue_tickets.sql")


def _ticket_code(event: Envelope) -> dict[str, Any]:
    if event.type != "reservation.confirmed":
        return {}
    return {"ticket_code": "".join(secrets.choice(_CODE_ALPHABET) for _ in range(_CODE_LENGTH))}


def _tell(effect: Mapping[str, Any]) -> None:
    """The steps say the same at once; here nothing that dies in between leaves a stale map or a buyer's place taken."""
    seats_changed(*effect["changed"], said_before=True)
    for buyer in effect["paid"]:
        end_turn(buyer["concert_id"], buyer["person"], buyer["pass_id"], "paid")


consume = Consumer(TICKET_CONSUMER, _ISSUE, _tell, _ticket_code).consume
"""``consume(event, context)``, the handler: see ``events.consumer``."""
