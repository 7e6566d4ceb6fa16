"""Postgres 15: a primary and a replica that streams from it through a slot."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pg8000.native

from encore_stack.instance import PROJECT_DIR, Instance, write_atomically
from encore_stack.parts.base import PROBE_TIMEOUT_S, Part, PartError, Unhealthy, find_program
from encore_stack.ports import HOST

_BIN_DIR = "/usr/lib/postgresql/15/bin"
_SLOT = "encore_replica"
_REPLICATION_USER = "encore_replication"
_SERVER_USER = "postgres"


class _Postgres(Part):
    stop_signal = "INT"  # "fast": ends the sessions, writes everything, leaves
    stop_wait_s = 30

    def command(self, instance: Instance) -> list[str]:
        data = self._data(instance)
        server = [find_program(f"{_BIN_DIR}/postgres", "postgres"), "-D", str(data)]
        return as_server_user(instance, server)

    def environment(self, instance: Instance) -> Mapping[str, str]:
        return {"LC_ALL": "C.UTF-8"}

    def advice(self, instance: Instance) -> str:
        otherwise = super().advice(instance)
        if os.getuid() == 0 and (closed := _closed_folders(instance)):
            return (
                f"if setpriv was refused: user {_SERVER_USER} may not walk through {', '.join(map(str, closed))}; "
                f"chmod o+x it, clone elsewhere, or run as an ordinary user. If not: {otherwise}"
            )
        return otherwise

    def _data(self, instance: Instance) -> Path:
        return instance.data_dir(self.name)

    def _write_settings(self, instance: Instance) -> None:
        """The server's files, written anew at each start: ports may have changed."""
        templates = PROJECT_DIR / "localstack" / "postgres"
        passfile = self._data(instance) / "replication.pgpass"
        settings = (templates / "postgresql.conf").read_text() + (
            f"\nport = {instance.ports[self.name]}\n"
            f"cluster_name = '{self.name}'\n"
            f"primary_slot_name = '{_SLOT}'\n"
            f"primary_conninfo = 'host={HOST} port={instance.ports['postgres']} user={_REPLICATION_USER} "
            f"passfile=''{passfile}'' application_name=replica sslmode=disable'\n"
        )
        password = instance.secrets()["replication_password"]
        self._write(instance, "postgresql.conf", settings)
        self._write(instance, "pg_hba.conf", (templates / "pg_hba.conf").read_text())
        self._write(instance, passfile.name, f"{HOST}:*:*:{_REPLICATION_USER}:{password}\n")

    def _write(self, instance: Instance, name: str, text: str, folder: Path | None = None) -> None:
        path = (folder or self._data(instance)) / name
        write_atomically(path, text, mode=0o600)
        _give_to_server_user(path)


class Primary(_Postgres):
    name = "postgres"

    def prepare(self, instance: Instance) -> None:
        data = self._data(instance)
        if not (data / "PG_VERSION").exists():
            self._create(instance)
        self._write_settings(instance)

    def probe(self, instance: Instance) -> None:
        with connected(instance, self.name, user="postgres", database="postgres") as connection:
            connection.run("select 1")

    def when_healthy(self, instance: Instance) -> None:
        """Roles, database and slot, where they are missing."""
        secret_values = instance.secrets()
        with connected(instance, self.name, user="postgres", database="postgres") as connection:
            script = (PROJECT_DIR / "localstack" / "postgres" / "roles.sql").read_text()
            for name in ("database_password", "replication_password"):
                script = script.replace(f":'{name}'", pg8000.native.literal(secret_values[name]))
            connection.run(script)
            if not connection.run("select 1 from pg_database where datname = 'encore'"):
                connection.run("create database encore owner encore")
            connection.run(
                "select pg_create_physical_replication_slot(:slot, true)"
                " where not exists (select 1 from pg_replication_slots where slot_name = :slot)",
                slot=_SLOT,
            )

    def _create(self, instance: Instance) -> None:
        data = self._data(instance)
        draft = _empty_draft(data)
        password_file = draft.with_name("initdb.password")
        write_atomically(password_file, instance.secrets()["postgres_password"], mode=0o600)
        _give_to_server_user(password_file)
        try:
            _run(
                instance,
                [find_program(f"{_BIN_DIR}/initdb", "initdb"), "--pgdata", str(draft), "--username=postgres"],
                ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8"],
                ["--data-checksums", "--no-instructions"],
                what="postgres: the database could not be created",
            )
        finally:
            password_file.unlink(missing_ok=True)
        draft.rename(data)


class Replica(_Postgres):
    name = "replica"
    needs = ("postgres",)

    def prepare(self, instance: Instance) -> None:
        data = self._data(instance)
        if not (data / "PG_VERSION").exists():
            self._copy_primary(instance)
        self._write_settings(instance)
        self._write(instance, "standby.signal", "")

    def probe(self, instance: Instance) -> None:
        with connected(instance, self.name) as connection:
            rows = connection.run("select pg_is_in_recovery(), (select status from pg_stat_wal_receiver)")
        in_recovery, receiver = rows[0]
        if not in_recovery:
            raise Unhealthy("not a replica any more")
        if receiver != "streaming":
            raise Unhealthy(f"not streaming from the primary: {receiver or 'no receiver'}")

    def _copy_primary(self, instance: Instance) -> None:
        data = self._data(instance)
        draft = _empty_draft(data)
        passfile = draft.with_name("basebackup.pgpass")
        password = instance.secrets()["replication_password"]
        write_atomically(passfile, f"{HOST}:*:*:{_REPLICATION_USER}:{password}\n", mode=0o600)
        _give_to_server_user(passfile)
        source = f"host={HOST} port={instance.ports['postgres']} user={_REPLICATION_USER} sslmode=disable"
        try:
            _run(
                instance,
                [find_program(f"{_BIN_DIR}/pg_basebackup", "pg_basebackup"), "--pgdata", str(draft)],
                ["--dbname", f"{source} passfile='{passfile}'", "--slot", _SLOT],
                ["--wal-method=stream", "--checkpoint=fast", "--no-password"],
                what="replica: the primary could not be copied",
            )
        finally:
            passfile.unlink(missing_ok=True)
        draft.rename(data)


@contextmanager
def connected(
    instance: Instance, part: str, user: str = "encore", database: str = "encore"
) -> Iterator[pg8000.native.Connection]:
    """A short-lived connection. Raises Unhealthy when there is none to be had or it breaks."""
    try:
        connection = connect(instance, part, user, database, timeout_s=PROBE_TIMEOUT_S)
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
    """A connection as the booking role, or as the superuser ``postgres``. Raises what pg8000 raises."""
    return pg8000.native.Connection(
        user,
        host=HOST,
        port=instance.ports[part],
        database=database,
        password=instance.secrets()["database_password" if user == "encore" else "postgres_password"],
        timeout=timeout_s,
        ssl_context=False,
    )


def as_server_user(instance: Instance, command: list[str]) -> list[str]:
    """Postgres refuses to run as root: then it runs as user postgres, with one right more where it needs it.

    The folders above the clone may be closed to others (mktemp -d, /root): the right to walk through them is handed
    down instead of opening them.
    """
    if os.getuid() != 0:
        return command
    switch = [find_program("setpriv"), f"--reuid={_SERVER_USER}", f"--regid={_SERVER_USER}", "--init-groups"]
    if _closed_folders(instance):
        switch += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*switch, "--", *command]


def _closed_folders(instance: Instance) -> list[Path]:
    """The folders above the instance that other users may not walk through."""
    return [folder for folder in instance.dir.parents if not folder.stat().st_mode & 0o001]


def _give_to_server_user(path: Path) -> None:
    if os.getuid() == 0:
        user = pwd.getpwnam(_SERVER_USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def _empty_draft(data: Path) -> Path:
    """The folder to build a data folder in: only a whole one gets the real name."""
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    _give_to_server_user(draft)
    return draft


def _run(instance: Instance, *command: list[str], what: str) -> None:
    whole = as_server_user(instance, [word for words in command for word in words])
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "HOME": "/"}
    done = subprocess.run(whole, check=False, capture_output=True, text=True, cwd=instance.dir, env=environment)
    if done.returncode:
        raise PartError(f"{what}:\n{done.stdout}{done.stderr}".rstrip())
