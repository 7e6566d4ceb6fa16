"""A Postgres primary and its replica of a test's own, which it may end, stop and promote."""

import os
import signal
from contextlib import suppress

from encore_stack.instance import POSTGRES_SERVERS, Instance
from encore_stack.parts import postgres
from encore_stack.parts.postgres import connected
from encore_stack.parts.postgres_data import mark_replaced
from encore_stack.stack import Stack
from support.waiting import wait_for

_NAME = "test-postgres"


class PostgresPair:
    """The two servers, as an instance of the stack of their own."""

    def __init__(self) -> None:
        Stack(Instance.load(_NAME)).down(wipe=True)  # what a run that was killed has left
        self.stack = Stack(Instance.load(_NAME))
        self.instance = self.stack.instance
        self.stack.up(["postgres"])
        # Nobody cuts the power: what a process has written survives its death, and the disk has other work.
        for name in POSTGRES_SERVERS:
            self.ask(name, "alter system set fsync = off")
            self.ask(name, "select pg_reload_conf()")

    def close(self) -> None:
        self.stack.down(wipe=True)

    @property
    def primary(self) -> str:
        return self.instance.postgres_primary

    @property
    def replica(self) -> str:
        return self.instance.postgres_replica

    def kill(self, name: str) -> None:
        """Kill -9 all of a server behind the stack's back."""
        postgres.kill(self.instance, name)
        wait_for(lambda: not self.stack.supervisor.processes()[name].pid, every_s=0.005)

    def hang(self, name: str) -> None:
        """Let a server stand still: it accepts connections and answers nobody."""
        self._signal(name, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        self._signal(name, signal.SIGCONT)

    def fail_over(self) -> tuple[str, str]:
        """Kill the primary and promote its replica; the names of both."""
        before, name = self.primary, self.replica
        self.kill(before)
        self.stack.promote(name)
        return before, name

    def bring_back_as_primary(self, name: str) -> None:
        """What must never be done: start a primary that was replaced as what it was."""
        (self.instance.data_dir(name) / "standby.signal").unlink()
        self.stack.supervisor.start_part(name)
        self.await_answer(name)

    def await_answer(self, name: str) -> None:

        def answers() -> bool:
            with suppress(postgres.Unhealthy), connected(self.instance, name) as connection:
                return bool(connection.run("select 1"))
            return False

        wait_for(answers)

    def heal(self) -> None:
        """Whatever a test has done: the primary runs, and the other one is its replica."""
        primary, replica = self.primary, self.replica
        for name in POSTGRES_SERVERS:
            self.go_on(name)
        if self._takes_writes(replica):
            self.kill(replica)
            mark_replaced(self.instance, replica)
        self.instance.replication = "async"
        if self.roles() != {primary: "primary", replica: f"replica of {primary}"}:
            self.stack.up([primary])

    def roles(self) -> dict[str, str | None]:
        """What they are; None for one that is not well."""
        return {part.name: part.role for part in self.stack.status() if part.name in POSTGRES_SERVERS}

    def ask(self, name: str, sql: str) -> list[list[object]]:
        """Ask one server, whatever it is."""
        with connected(self.instance, name, user="postgres") as connection:
            return list(connection.run(sql) or [])

    def _takes_writes(self, name: str) -> bool:
        with suppress(postgres.Unhealthy):
            return self.ask(name, "select pg_is_in_recovery()") == [[False]]
        return False

    def _signal(self, name: str, how: signal.Signals) -> None:
        for pid in postgres.processes_of(self.instance, name):
            with suppress(ProcessLookupError):
                os.kill(pid, how)
