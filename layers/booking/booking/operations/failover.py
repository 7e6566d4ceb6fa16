"""What a failover of Postgres to a replica that had not got everything leaves to be settled.

The new primary is the truth; what it lacks has not happened, whoever was told so. Most of it heals by itself: holds
that are not there are free seats, a payment whose outcome was lost is pending again, an event of a lost commit is void.
Two things outlive the commits they belong to, and are settled here:

- **Money.** A payment is committed before its gateway is asked, so a charge without one tells that the commit was lost,
  and with it what the money was for: it goes back. So does what was taken by a gateway that a payment, by a commit that
  was lost, had turned to.
- **Events.** A consumer may have acted on the old primary alone, and Kafka does not bring the event again: those of the
  last minutes are published once more, and each acts once.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from booking.operations.reconciliation import copy_book, find_differences, send_back
from booking.platform.postgres import Server
from booking.platform.resources import read_text

_PUBLISH_AGAIN = read_text(__package__, "sql/publish_again.sql")


@dataclass(frozen=True, slots=True)
class LostCharge:
    """Money that a gateway has taken for a payment which the database does not know; in the smallest unit."""

    gateway: str
    key: str
    order_id: str
    amount: int


def lost_charges(server: Server, gateway_urls: Mapping[str, str]) -> list[LostCharge]:
    """Every charge that was not refunded and that no payment accounts for, by gateway and in the order of its book.

    ``server`` must be the primary. Raises BookUnreadable, DatabaseAway.
    """
    for name, url in gateway_urls.items():
        copy_book(server, name, url)
    found = [difference.facts for difference in find_differences(server, gateway_urls)]
    # A payment that is known at another gateway has turned away from this one, which took nothing, or the commit of its
    # turn to this one was lost.
    return [
        LostCharge(facts.gateway, facts.key, facts.order_id, facts.left_there)
        for facts in found
        if facts.payment_gateway != facts.gateway
    ]


def refund(charge: LostCharge) -> bool:
    """Send the money back; whether the gateway has confirmed it. Safe to repeat."""
    return send_back(charge.gateway, charge.key)


def publish_again(server: Server, since_s: int) -> int:
    """Have the relay publish the events of the last ``since_s`` seconds once more; how many. Raises DatabaseAway."""
    return len(server.rows(_PUBLISH_AGAIN, since_s=since_s))
