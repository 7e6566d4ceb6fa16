"""The steps and the background loops as processes of a test's own, each of which may be killed at any moment.

They are forked from a server that has everything imported (``step_server``), so another one works milliseconds later.
"""

import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from encore_stack.instance import PROJECT_DIR

_BACKLOG = 512
_WAIT_S_MAX = 30
_KILLS = (4, 4, 4, 1, 1, 1)
"""How often each is killed, beside the others. Those that stand by take over after half a second: more would starve."""
KINDS = ("steps", "steps", "steps", "settle", "settle", "sweep")


class Asked(NamedTuple):
    """What a process has asked a payment firm: from when to when, and how it ended."""

    gateway: str
    outcome: str
    from_s: float
    until_s: float


class Task(msgspec.Struct, frozen=True):
    """What one process is to do: serve the ``steps`` at a socket, ``settle`` payments or ``sweep`` holds. ``asked``:
    the file for what it asks the payment firms. ``slow``: the share of their answers that it takes in late, so that
    others overtake it there and it is killed there. ``guard_out``: see ``step_server.GUARDS``."""

    kind: str
    environment: dict[str, str]
    asked: str
    slow: float
    guard_out: str = ""


class StepProcesses:
    """Those of KINDS, with the environment that the test has when it starts them."""

    def __init__(self, asked: Path) -> None:
        self._asked = asked
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        paths = [PROJECT_DIR / each for each in ("tests", "localstack", "layers/booking")]
        self._server = subprocess.Popen(
            [sys.executable, "-m", "support.step_server", str(self._listening.fileno())],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
            pass_fds=[self._listening.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._running: list[tuple[Task, int]] = []

    def start(self, slow: float = 0.2, guard_out: str = "") -> None:
        """Start all of them, in place of those that run. ``slow``, ``guard_out``: see Task."""
        self.kill_all()
        self._asked.unlink(missing_ok=True)
        for kind in KINDS:
            task = Task(kind, dict(os.environ), str(self._asked), slow, guard_out)
            self._running.append((task, self._fork(task)))

    def kill_one(self, chance: random.Random) -> str:
        """Kill -9 one of them, whatever it is doing, and start another in its place. Returns its kind."""
        at = chance.choices(range(len(KINDS)), _KILLS)[0]
        task, pid = self._running[at]
        os.kill(pid, signal.SIGKILL)  # raises if it has ended by itself
        self._running[at] = (task, self._fork(task))
        return task.kind

    def kill_all(self) -> None:
        """Kill -9 all of them."""
        while self._running:
            _, pid = self._running.pop()
            os.kill(pid, signal.SIGKILL)

    def asked(self) -> list[Asked]:
        """What they have asked the payment firms, but for what a process was asking when it was killed."""
        lines = (line.split() for line in self._asked.read_text().splitlines())
        return [Asked(gateway, outcome, float(from_s), float(until_s)) for gateway, outcome, from_s, until_s in lines]

    def close(self) -> None:
        """End the server, and with it whatever it has forked."""
        self._server.communicate(timeout=_WAIT_S_MAX)
        self._listening.close()

    def _fork(self, task: Task) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(msgspec.json.encode(task) + b"\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())
