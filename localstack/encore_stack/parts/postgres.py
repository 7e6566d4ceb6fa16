"""Postgres 15: a primary and a replica that streams from it through a slot.

The parts are servers, not roles: a failover leaves the roles the other way round, and nothing turns them back, since
that would be one more pause in which nobody can write, for the sake of names. Nothing restarts a server by itself: an
old primary that came back beside the one that took its place would take writes that nobody else ever sees. Whoever
starts a server looks first which of them is the primary (``Instance.postgres_primary``).
"""

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pg8000.native

from encore_stack.instance import POSTGRES_SERVERS, PROJECT_DIR, Instance
from encore_stack.parts import postgres_data
from encore_stack.parts.base import PROBE_TIMEOUT_S, Part, Unhealthy, find_program
from encore_stack.parts.postgres_data import SLOT, closed_folders
from encore_stack.ports import HOST

_PROMOTION_S_MAX = 30
_CHECKPOINT_S_MAX = 120
_POLL_S = 0.02


class PostgresServer(Part):
    """One of the two servers, whichever role it has."""

    peers = POSTGRES_SERVERS
    stop_signal = "INT"  # "fast": ends the sessions, writes everything, leaves
    stop_wait_s = 30

    def __init__(self, name: str) -> None:
        self.name = name

    def waits_for(self, instance: Instance) -> tuple[str, ...]:
        return () if self._is_primary(instance) else (instance.postgres_primary,)

    def restarts_when_it_dies(self, instance: Instance) -> bool:
        return False

    def prepare(self, instance: Instance) -> None:
        is_primary = self._is_primary(instance)
        if not (instance.data_dir(self.name) / "PG_VERSION").exists():
            make = postgres_data.create if is_primary else postgres_data.copy_primary
            make(instance, self.name)
        elif instance.rejoin_mark(self.name).exists():
            postgres_data.rejoin(instance, self.name)
        # From its start a primary acknowledges nothing that is on one disk only, whether the replica is there or not.
        is_synchronous = is_primary and instance.replication == "sync"
        postgres_data.write_settings(instance, self.name, synchronous=is_synchronous)

    def command(self, instance: Instance) -> list[str]:
        program = find_program(f"{postgres_data.BIN_DIR}/postgres", "postgres")
        return postgres_data.as_server_user(instance, [program, "-D", str(instance.data_dir(self.name))])

    def environment(self, instance: Instance) -> Mapping[str, str]:
        return {"LC_ALL": "C.UTF-8"}

    def probe(self, instance: Instance) -> None:
        if self._is_primary(instance):
            with connected(instance, self.name, user="postgres", database="postgres") as connection:
                connection.run("select 1")
            return
        with connected(instance, self.name) as connection:
            rows = connection.run("select pg_is_in_recovery(), (select status from pg_stat_wal_receiver)")
        in_recovery, receiver = rows[0]
        if not in_recovery:
            raise Unhealthy(f"it takes writes beside {instance.postgres_primary}, the primary")
        if receiver != "streaming":
            raise Unhealthy(f"not streaming from the primary: {receiver or 'no receiver'}")

    def when_healthy(self, instance: Instance) -> None:
        """Roles, database and slot, where they are missing; whether commits wait for the replica."""
        if self._is_primary(instance):
            if _is_in_recovery(instance, self.name):  # promoting it was broken off
                promote(instance, self.name)
            self._furnish(instance)
            if instance.replication == "async":
                let_commits_wait(instance, False)
        else:
            with connected(instance, self.name, user="postgres", database="postgres") as connection:
                # Its own, from when it was the primary: it would keep what nobody fetches.
                connection.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active")
            if instance.replication == "sync":
                let_commits_wait(instance, True)

    def role(self, instance: Instance) -> str | None:
        try:
            with connected(instance, self.name, user="postgres", database="postgres") as connection:
                rows = connection.run(
                    "select pg_is_in_recovery(), (select sender_port from pg_stat_wal_receiver),"
                    " current_setting('synchronous_standby_names')"
                )
        except Unhealthy:
            return None
        in_recovery, port, waits_for = rows[0]
        if not in_recovery:
            return f"primary, commits wait for {waits_for}" if waits_for else "primary"
        sources = {instance.ports[name]: name for name in POSTGRES_SERVERS}
        return f"replica of {sources.get(port, port)}"

    def advice(self, instance: Instance) -> str:
        otherwise = super().advice(instance)
        if os.getuid() == 0 and (closed := closed_folders(instance)):
            return (
                f"if setpriv was refused: user postgres may not walk through {', '.join(map(str, closed))}; "
                f"chmod o+x it, clone elsewhere, or run as an ordinary user. If not: {otherwise}"
            )
        return otherwise

    def _is_primary(self, instance: Instance) -> bool:
        return self.name == instance.postgres_primary

    def _furnish(self, instance: Instance) -> None:
        secret_values = instance.secrets()
        with connected(instance, self.name, user="postgres", database="postgres") as connection:
            script = (PROJECT_DIR / "localstack" / "postgres" / "roles.sql").read_text()
            for name in ("database_password", "replication_password"):
                script = script.replace(f":'{name}'", pg8000.native.literal(secret_values[name]))
            connection.run(script)
            if not connection.run("select 1 from pg_database where datname = 'encore'"):
                connection.run("create database encore owner encore")
            _make_slot(connection)


# -- roles -----------------------------------------------------------------------------------------------------------


def check_promotable(instance: Instance, name: str) -> None:
    """Raises Unhealthy where this server cannot become the primary."""
    if name == instance.postgres_primary:
        raise Unhealthy("it is the primary already")
    try:
        is_replica = _is_in_recovery(instance, name)
    except Unhealthy as error:
        raise Unhealthy(f"it does not answer ({error}): scripts/stack start {name} starts it") from error
    if not is_replica:
        raise Unhealthy("it is no replica")


def replace_primary(instance: Instance, before: str, name: str) -> None:
    """Server ``before`` runs no more: make its replica ``name`` the primary. Raises Unhealthy.

    Who is the primary is written down first. Broken off anywhere, the next start goes on from there.
    """
    postgres_data.mark_replaced(instance, before)
    promote(instance, name)


def promote(instance: Instance, name: str) -> None:
    """Make a replica take writes. Its commits wait for nobody until the other server follows it."""
    with connected(instance, name, "postgres", "postgres", timeout_s=_PROMOTION_S_MAX) as connection:
        _make_slot(connection)  # before: what the other server will need is kept from here on
        connection.run("select pg_promote(true, cast(:within_s as integer))", within_s=_PROMOTION_S_MAX)
        if connection.run("select pg_is_in_recovery()")[0][0]:
            raise Unhealthy(f"it was not promoted within {_PROMOTION_S_MAX} s")


def settle_promotion(instance: Instance, name: str) -> None:
    """Write the new timeline into the control file, where pg_rewind looks for it."""
    with connected(instance, name, "postgres", "postgres", timeout_s=_CHECKPOINT_S_MAX) as connection:
        connection.run("checkpoint")


def let_commits_wait(instance: Instance, waits: bool) -> None:
    """Whether the primary acknowledges a commit only when the replica has it on its disk, from now on."""
    primary = instance.postgres_primary
    postgres_data.write_settings(instance, primary, synchronous=waits)
    with connected(instance, primary, user="postgres", database="postgres") as connection:
        connection.run("select pg_reload_conf()")
        deadline_s = time.monotonic() + PROBE_TIMEOUT_S
        while bool(connection.run("show synchronous_standby_names")[0][0]) != waits:
            if time.monotonic() > deadline_s:
                raise Unhealthy("it does not take over its settings")
            time.sleep(_POLL_S)


def kill(instance: Instance, name: str) -> None:
    """Kill -9 every process of a server, and return when none is left. Nothing happens where none runs.

    Sessions that are busy go on for a moment after their postmaster has died, and keep a new one from starting.
    """
    deadline_s = time.monotonic() + PROBE_TIMEOUT_S
    while processes := processes_of(instance, name):
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline_s:
            raise Unhealthy(f"processes of {name} do not end: {processes}")
        time.sleep(_POLL_S)


def processes_of(instance: Instance, name: str) -> list[int]:
    """The server's processes, known by their working folder: Postgres goes to its data and stays there."""
    found, folder = [], str(instance.data_dir(name))
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if str((entry / "cwd").readlink()) == folder:
                    found.append(int(entry.name))
    return found


def _is_in_recovery(instance: Instance, name: str) -> bool:
    with connected(instance, name, user="postgres", database="postgres") as connection:
        return bool(connection.run("select pg_is_in_recovery()")[0][0])


def _make_slot(connection: pg8000.native.Connection) -> None:
    connection.run(
        "select pg_create_physical_replication_slot(:slot, true)"
        " where not exists (select 1 from pg_replication_slots where slot_name = :slot)",
        slot=SLOT,
    )


@contextmanager
def connected(
    instance: Instance,
    part: str,
    user: str = "encore",
    database: str = "encore",
    timeout_s: float = PROBE_TIMEOUT_S,
) -> Iterator[pg8000.native.Connection]:
    """A short-lived connection. Raises Unhealthy when there is none to be had or it breaks."""
    try:
        connection = connect(instance, part, user, database, timeout_s=timeout_s)
        try:
            yield connection
        finally:
            connection.close()
    except (pg8000.native.InterfaceError, OSError) as error:
        raise Unhealthy(f"no connection: {error.__cause__ or error}") from error
    except pg8000.native.DatabaseError as error:
        raise Unhealthy(str(error.args[0].get("M", error.args[0]) if error.args else error)) from error


def connect(
    instance: Instance, part: str, user: str = "encore", database: str = "encore", *, timeout_s: float | None = None
) -> pg8000.native.Connection:
    """A connection as the booking role, or as the superuser ``postgres``. Raises what pg8000 raises.

    What the superuser does (roles, slots) waits for no replica: without that one it is needed most.
    """
    return pg8000.native.Connection(
        user,
        host=HOST,
        port=instance.ports[part],
        database=database,
        password=instance.secrets()["database_password" if user == "encore" else "postgres_password"],
        timeout=timeout_s,
        ssl_context=False,
        startup_params={"synchronous_commit": "local"} if user == "postgres" else None,
    )
