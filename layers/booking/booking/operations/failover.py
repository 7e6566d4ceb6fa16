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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from booking.operations.audit import read_book
from booking.payment.gateways import Outcome, gateway
from booking.platform.postgres import Server
from booking.platform.resources import read_text

_UNKNOWN = read_text(__package__, "sql/unknown_payments.sql")
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

    ``server`` must be the primary. Raises AuditImpossible when a book cannot be read, DatabaseAway.
    """
    return [charge for name, url in gateway_urls.items() for charge in _lost_at(server, name, url)]


def refund(charge: LostCharge) -> bool:
    """Send the money back; whether the gateway has confirmed it. Safe to repeat."""
    return gateway(charge.gateway).cancel(charge.key) is Outcome.CANCELLED


def publish_again(server: Server, since_s: int) -> int:
    """Have the relay publish the events of the last ``since_s`` seconds once more; how many. Raises DatabaseAway."""
    return len(server.rows(_PUBLISH_AGAIN, since_s=since_s))


def _lost_at(server: Server, name: str, url: str) -> Iterator[LostCharge]:
    taken: dict[str, LostCharge] = {}
    for entry in read_book(url):
        before = taken[entry.key].amount if entry.key in taken else 0
        amount = before + (entry.amount if entry.kind == "charge" else -entry.amount)
        taken[entry.key] = LostCharge(name, entry.key, entry.order_id, amount)
    # After the book was read: the payments of all its charges had been committed by then.
    keys = [key for key, charge in taken.items() if charge.amount]
    unknown = {key for (key,) in server.rows(_UNKNOWN, keys=keys, gateway=name)}
    return (charge for key, charge in taken.items() if key in unknown)
