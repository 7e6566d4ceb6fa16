"""The data folders of Postgres: made, copied from the primary, brought back as a replica's, given their settings."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encore_stack.instance import POSTGRES_SERVERS, PROJECT_DIR, Instance, write_atomically
from encore_stack.parts.base import PartError, find_program
from encore_stack.ports import HOST

BIN_DIR = "/usr/lib/postgresql/15/bin"
SLOT = "encore_replica"
REPLICATION_USER = "encore_replication"
_SERVER_USER = "postgres"


def create(instance: Instance, name: str) -> None:
    """An empty database. Raises PartError."""
    data = instance.data_dir(name)
    draft = _empty_draft(data)
    password_file = draft.with_name("initdb.password")
    write_atomically(password_file, instance.secrets()["postgres_password"], mode=0o600)
    _give_to_server_user(password_file)
    try:
        _run(
            instance,
            [find_program(f"{BIN_DIR}/initdb", "initdb"), "--pgdata", str(draft), "--username=postgres"],
            ["--auth=scram-sha-256", f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C.UTF-8"],
            ["--data-checksums", "--no-instructions"],
            what=f"{name}: the database could not be created",
        )
    finally:
        password_file.unlink(missing_ok=True)
    draft.rename(data)


def copy_primary(instance: Instance, name: str) -> None:
    """A copy of what the primary has now. Raises PartError."""
    data = instance.data_dir(name)
    draft = _empty_draft(data)
    with _source(instance, name) as source:
        _run(
            instance,
            [find_program(f"{BIN_DIR}/pg_basebackup", "pg_basebackup"), "--pgdata", str(draft)],
            ["--dbname", source, "--slot", SLOT, "--wal-method=stream", "--checkpoint=fast", "--no-password"],
            what=f"{name}: the primary could not be copied",
        )
    write(draft / "standby.signal", "")
    shutil.rmtree(data, ignore_errors=True)
    draft.rename(data)


def rejoin(instance: Instance, name: str) -> None:
    """Make the data of a primary that was replaced those of a replica of the one that replaced it. Raises PartError.

    pg_rewind takes back what nobody else has and fetches what differs; where it cannot, everything is copied anew.
    """
    data = instance.data_dir(name)
    (data / "standby.signal").unlink(missing_ok=True)  # pg_rewind ends a crash by running the server as it was
    try:
        with _source(instance, name, database="postgres") as source:
            _run(
                instance,
                [find_program(f"{BIN_DIR}/pg_rewind", "pg_rewind"), "--target-pgdata", str(data)],
                ["--source-server", source],
                what=f"{name}: pg_rewind",
            )
        write(data / "standby.signal", "")
    except PartError as why:
        with instance.log_file(name).open("a") as log:
            log.write(f"{why}\n{name}: copied anew instead\n")
        copy_primary(instance, name)
    # At the very end: until then the mark says that these are not the data of the primary.
    instance.rejoin_mark(name).unlink()


def mark_replaced(instance: Instance, name: str) -> None:
    """Say that another server takes this one's place as the primary; whatever starts it, it is no primary any more."""
    instance.rejoin_mark(name).touch()
    write(instance.data_dir(name) / "standby.signal", "")


def write_settings(instance: Instance, name: str, *, synchronous: bool) -> None:
    """The server's files, written anew at each start: ports may have changed. ``synchronous``: commits wait for the
    other server."""
    data = instance.data_dir(name)
    templates = PROJECT_DIR / "localstack" / "postgres"
    passfile = data / "replication.pgpass"
    other = next(each for each in POSTGRES_SERVERS if each != name)
    settings = (templates / "postgresql.conf").read_text() + (
        f"\nport = {instance.ports[name]}\n"
        f"cluster_name = '{name}'\n"
        f"synchronous_standby_names = '{other if synchronous else ''}'\n"
        f"primary_slot_name = '{SLOT}'\n"
        f"primary_conninfo = 'host={HOST} port={instance.ports[other]} user={REPLICATION_USER} "
        f"passfile=''{passfile}'' application_name={name} sslmode=disable'\n"
    )
    write(data / "postgresql.conf", settings)
    write(data / "pg_hba.conf", (templates / "pg_hba.conf").read_text())
    write(passfile, _passfile(instance))


def write(path: Path, text: str) -> None:
    """A file that the server reads."""
    write_atomically(path, text, mode=0o600)
    _give_to_server_user(path)


@contextmanager
def _source(instance: Instance, name: str, database: str = "") -> Iterator[str]:
    """How to connect to the primary."""
    passfile = instance.data_dir(name).with_name(f"{name}.pgpass")
    write(passfile, _passfile(instance))
    where = f"host={HOST} port={instance.ports[instance.postgres_primary]} user={REPLICATION_USER} sslmode=disable"
    try:
        yield f"{where} passfile='{passfile}'" + (f" dbname={database}" if database else "")
    finally:
        passfile.unlink()


def _passfile(instance: Instance) -> str:
    return f"{HOST}:*:*:{REPLICATION_USER}:{instance.secrets()['replication_password']}\n"


def as_server_user(instance: Instance, command: list[str]) -> list[str]:
    """Postgres refuses to run as root: then it runs as user postgres, with one right more where it needs it.

    The folders above the clone may be closed to others (mktemp -d, /root): the right to walk through them is handed
    down instead of opening them.
    """
    if os.getuid() != 0:
        return command
    switch = [find_program("setpriv"), f"--reuid={_SERVER_USER}", f"--regid={_SERVER_USER}", "--init-groups"]
    if closed_folders(instance):
        switch += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*switch, "--", *command]


def closed_folders(instance: Instance) -> list[Path]:
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
