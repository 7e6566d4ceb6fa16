"""Redis in each of the ways in which the stack runs it, as instances of the stack of these tests' own."""

import os
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from encore_stack import redis_roles
from encore_stack.instance import REDIS_PARTS, REDIS_SERVERS, SENTINEL_SERVICE, Instance
from encore_stack.stack import Stack
from support.waiting import wait_for

TOPOLOGIES = tuple(REDIS_SERVERS)


class RedisStacks:
    """Starts the servers of a topology when they are first asked for; they run until ``close``."""

    def __init__(self) -> None:
        self._stacks: dict[str, Stack] = {}

    def get(self, topology: str) -> Stack:
        """The running servers. A test that ends some of them starts them again."""
        if topology not in self._stacks:
            name = f"test-redis-{topology}"
            Stack(Instance.load(name)).down(wipe=True)  # what a run that was killed has left
            stack = self._stacks[topology] = Stack(Instance.load(name))
            stack.choose_redis(topology)
            stack.up(["redis"])
        return self._stacks[topology]

    def close(self) -> None:
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda stack: stack.down(wipe=True), self._stacks.values()))


def runs_on(*topologies: str) -> pytest.MarkDecorator:
    """The test, or the module whose ``pytestmark`` it is, runs on these instead of those that its folder names."""
    return pytest.mark.parametrize("redis_topology", topologies)


def tell_masters(stack: Stack, *words: str | int) -> dict[str, Any]:
    """Send a command that has no key to every master; the answers, as the server gives them, by the parts' names."""
    answers = {}
    for name in stack.instance.redis_servers:
        if redis_roles.role_of(stack.instance, name).master is None:
            with redis_roles.asking(stack.instance, name) as ask:
                answers[name] = ask(*words)
    return answers


def end(stack: Stack, part: str, how: signal.Signals = signal.SIGKILL) -> None:
    """Send a part's process a signal behind the stack's back."""
    os.kill(stack.supervisor.processes()[part].pid, how)


def heal(stack: Stack) -> None:
    """Let whatever a test has ended or stopped run again; return when the sentinels have done with it, too.

    One that is still busy with a failover takes no part in the next, and tells the servers of the last one's master.
    """
    for part, process in stack.supervisor.processes().items():
        if process.pid and part in REDIS_PARTS:
            os.kill(process.pid, signal.SIGCONT)
    stack.up(["redis"])
    if stack.instance.sentinels:
        wait_for(lambda: _seen_by_sentinels(stack), lambda seen: len(set(seen)) == 1 and seen[0][1:] == _ALL_WELL)


_ALL_WELL = (b"master", b"slave", b"slave")


def _seen_by_sentinels(stack: Stack) -> list[tuple[bytes, ...]]:
    """As each sees them: the master's port, and the flags of the master and of its replicas."""
    seen = []
    for name in stack.instance.sentinels:
        with redis_roles.asking(stack.instance, name) as ask:
            master = redis_roles.pairs(ask("SENTINEL", "MASTER", SENTINEL_SERVICE))
            replicas = map(redis_roles.pairs, ask("SENTINEL", "REPLICAS", SENTINEL_SERVICE))
            seen.append((master[b"port"], master[b"flags"], *(replica[b"flags"] for replica in replicas)))
    return seen


def wait_for_another_master(stack: Stack, lost: str, key: str = "") -> str:
    """The master in place of ``lost``: of the sentinels, or of ``key``'s slot."""

    def master() -> str | None:
        with suppress(redis_roles.NoMaster):
            return redis_roles.master_of(stack.instance, key)
        return None

    return str(wait_for(master, lambda name: name not in (None, lost), every_s=0.01))


def roles(stack: Stack) -> dict[str, str | None]:
    """The master of each server; None: it is one."""
    return {name: redis_roles.role_of(stack.instance, name).master for name in stack.instance.redis_servers}


def settled_roles(stack: Stack) -> dict[str, str | None]:
    """As ``roles``, once every replica follows a master: after a failover some still follow who was replaced."""

    def are_settled(found: dict[str, str | None]) -> bool:
        return all(found[master] is None for master in found.values() if master is not None)

    return wait_for(lambda: roles(stack), are_settled)


def start_server(processes: ExitStack, folder: Path, lines: Sequence[str], *, sentinel: bool = False) -> None:
    """Start a server of the test's own with these settings; return when it takes connections."""
    folder.mkdir()
    file = folder / "redis.conf"
    file.write_text("\n".join(["bind 127.0.0.1", f"dir {folder}", 'save ""', *lines, ""]))
    command = ["redis-server", str(file), *(["--sentinel"] if sentinel else [])]
    process = processes.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    processes.callback(process.kill)
    assert process.stdout is not None
    ready = "Sentinel ID is" if sentinel else "Ready to accept connections"
    assert any(ready in line for line in process.stdout), f"it ended: {process.wait()}"
