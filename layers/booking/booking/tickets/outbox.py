"""The outbox as a table: how much of it waits, and forgetting what is old. Needs no Kafka client."""

from dataclasses import dataclass

from booking.platform.postgres import Queries, primary
from booking.platform.resources import read_text
from booking.platform.settings import settings

BACKLOG_COUNT_MAX = 100_000
"""No more events are counted: the figure is asked for each second, also when the backlog is long."""
_PRUNED_AT_ONCE_MAX = 1_000

_BACKLOG = read_text(__package__, "sql/backlog.sql")
_PRUNE_OUTBOX = read_text(__package__, "sql/prune_outbox.sql")
_PRUNE_INBOX = read_text(__package__, "sql/prune_inbox.sql")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events that are committed and not published."""

    count: int
    """At most ``BACKLOG_COUNT_MAX``."""
    oldest_age_s: float
    """0 when there is none."""
    set_aside: int
    """Of them, those that Kafka would not take while it took others."""


def backlog(server: Queries) -> Backlog:
    """What waits for the relay now. Raises DatabaseAway."""
    [[count, oldest_age_s, set_aside]] = server.rows(_BACKLOG, limit=BACKLOG_COUNT_MAX)
    return Backlog(count, oldest_age_s, set_aside)


def prune() -> int:
    """Forget a bounded number of events that are old, published (outbox) and applied (inbox); returns how many."""
    outbox = primary().rows(_PRUNE_OUTBOX, kept_s=settings().outbox_kept_s, limit=_PRUNED_AT_ONCE_MAX)
    inbox = primary().rows(_PRUNE_INBOX, kept_s=settings().inbox_kept_s, limit=_PRUNED_AT_ONCE_MAX)
    return len(outbox) + len(inbox)
