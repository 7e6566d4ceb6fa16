"""The replica is a moment behind; tests that read what they have just written wait for that moment to be over.

Others make it lag on purpose.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from booking.platform.postgres import primary, replica
from encore_stack.instance import Instance
from support.superuser import superuser
from support.waiting import wait_for


def wait_for_replica() -> None:
    """Return when the replica has replayed what the primary has written so far; at once where the two are one."""
    written = primary().value("select pg_current_wal_lsn()::text")
    replayed = "select not pg_is_in_recovery() or pg_last_wal_replay_lsn() >= cast(:written as pg_lsn)"
    wait_for(lambda: replica().value(replayed, written=written), every_s=0.002)


class Replay:
    """The replica's replaying of what the primary has written, to be held up by a superuser of its own."""

    def __init__(self, run: Callable[[str], list[list[object]]]) -> None:
        self._run = run

    def pause(self) -> None:
        """From now on the replica answers from what it has now."""
        wait_for_replica()
        self._run("select pg_wal_replay_pause()")
        wait_for(
            lambda: self._run("select pg_get_wal_replay_pause_state()"), lambda it: it == [["paused"]], every_s=0.002
        )

    def resume(self) -> None:
        """Go on; returns when everything is replayed."""
        self._run("select pg_wal_replay_resume()")
        wait_for_replica()

    def lag(self, milliseconds: int) -> None:
        """From now on replay each commit so much later."""
        self._run(f"alter system set recovery_min_apply_delay = '{milliseconds}ms'")
        self._run("select pg_reload_conf()")

    def mend(self) -> None:
        """Undo all of this."""
        self._run("alter system reset recovery_min_apply_delay")
        self._run("select pg_reload_conf()")
        self.resume()


@contextmanager
def replay_of(instance: Instance) -> Iterator[Replay]:
    """The replica's replaying, mended at the end."""
    with superuser(instance, instance.postgres_replica) as connection:
        replay = Replay(connection.run)
        try:
            yield replay
        finally:
            replay.mend()
