"""The replica is a moment behind; tests that read what they have just written wait for that moment to be over."""

from booking.platform.postgres import primary, replica
from support.waiting import wait_for


def wait_for_replica() -> None:
    """Return when the replica has replayed everything that the primary has written so far."""
    written = primary().value("select pg_current_wal_lsn()::text")
    replayed = "select pg_last_wal_replay_lsn() >= cast(:written as pg_lsn)"
    wait_for(lambda: replica().value(replayed, written=written), every_s=0.002)
