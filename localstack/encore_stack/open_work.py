"""What is open in the sale just now: events on their way, payments in doubt, firms that are not asked, dead letters."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from pg8000.exceptions import DatabaseError

from booking.events.dead_letters import count_dead_letters
from booking.payment import circuits, count_open_payments
from booking.platform.postgres import DatabaseAway, DatabaseBusy, Server
from booking.platform.settings import settings
from booking.tickets.outbox import Backlog, backlog
from encore_stack.instance import Instance
from encore_stack.process_settings import adopt_settings


@dataclass(frozen=True, slots=True)
class OpenWork:
    """``open_circuits``: firm and operation (charges, lookups) of each circuit breaker that is open, or half open."""

    outbox: Backlog
    payments: int
    """Pending or owed back, of at most 1,000."""
    dead_letters: int
    """That wait for somebody."""
    open_circuits: Sequence[str]


def read_open_work(instance: Instance) -> OpenWork | None:
    """None where the database is away, or has no tables yet."""
    adopt_settings(instance)
    try:
        with closing(Server(settings().database_url)) as server:
            waiting = count_dead_letters(server).get("waiting", 0)
            return OpenWork(backlog(server), count_open_payments(server), waiting, _open_circuits())
    except (DatabaseAway, DatabaseBusy, DatabaseError):
        return None


def _open_circuits() -> list[str]:
    return [f"{firm} {operation}" for (firm, operation), is_closed in circuits().items() if not is_closed]
