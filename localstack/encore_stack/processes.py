"""Processes that an instance left behind: found by its marker, its supervisor's session or its files, then ended."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from encore_stack.instance import MARKER, PART_MARKER, Instance

_GRACE_S = 3.0


def find_strays(instance: Instance, part: str | None = None) -> dict[int, str]:
    """Process id to command line of everything that belongs to the instance, or to one part of it.

    This process and its parents are excepted.
    """
    part_marker = f"{PART_MARKER}={part}".encode()
    marker = f"{MARKER}={instance.dir}".encode()
    folder = f"{instance.dir}/".encode()
    mine = _self_and_ancestors()
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in mine:
            continue
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if not command:  # a kernel thread, or one that has ended
                continue
            environment = (entry / "environ").read_bytes().split(b"\0")
            if part and not (marker in environment and part_marker in environment):
                continue
            # Postgres writes its titles over its environment: it is known by its data folder, and dies with its parent.
            if marker in environment or folder in command.split(b"\0", 1)[0] or _is_server_of(command, folder):
                found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def end_strays(instance: Instance, part: str | None = None) -> list[str]:
    """Ends what find_strays finds, politely first; returns their command lines."""
    ended: dict[int, str] = {}
    deadline = time.monotonic() + _GRACE_S
    while strays := find_strays(instance, part):
        late = time.monotonic() > deadline
        for pid, command in strays.items():
            if late or pid not in ended:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else _polite_signal(command))
            ended[pid] = command
        if time.monotonic() > deadline + _GRACE_S:
            break
        time.sleep(0.05)
    return list(ended.values())


def _polite_signal(command: str) -> signal.Signals:
    """To Postgres SIGTERM says: wait until the last session has gone."""
    return signal.SIGINT if command.split(" ", 1)[0].endswith("/postgres") else signal.SIGTERM


def _is_server_of(command: bytes, folder: bytes) -> bool:
    program, _, arguments = command.partition(b"\0")
    name = program.rsplit(b"/", 1)[-1]
    return name in (b"postgres", b"redis-server", b"supervisord", b"java") and folder in arguments


def _self_and_ancestors() -> set[int]:
    pids, pid = set(), os.getpid()
    while pid > 1:
        pids.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pids


def is_alive(pid: int) -> bool:
    """Whether there is a process that has not ended; one that its parent has not noticed to be dead does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
