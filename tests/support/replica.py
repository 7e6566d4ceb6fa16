"""The replica is a moment behind; tests that read what they have just written wait for that moment to be over."""

import time

from booking.platform.postgres import primary, replica

_WAIT_S_MAX = 10


def wait_for_replica() -> None:
    """Return when the replica has replayed everything that the primary has written so far."""
    written = primary().value("select pg_current_wal_lsn()::text")
    deadline_s = time.monotonic() + _WAIT_S_MAX
    while not replica().value("select pg_last_wal_replay_lsn() >= cast(:written as pg_lsn)", written=written):
        assert time.monotonic() < deadline_s, "the replica does not catch up"
        time.sleep(0.002)
