"""What a drill plays on: an instance of its own with the servers it needs, and a concert that nobody has seen yet."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from booking.platform.resources import read_text
from drills.harness.crowd import Concert
from encore_stack import progress
from encore_stack.commands import up
from encore_stack.instance import Instance
from encore_stack.parts.localstack import deployed_api_url
from encore_stack.parts.postgres import connected
from encore_stack.process_settings import adopt_settings
from encore_stack.stack import Stack, StackError

INSTANCE = "drill"
_MARKER = "drill.json"
"""Says that a drill made the instance, and with which servers: only such an instance is broken and wiped."""
RECORDS = "drills"
_SEATS_PER_SCHEDULE = 150
_REPLICA_S_MAX = 15.0
_OPEN_CONCERT = read_text("drills.harness", "sql/open_concert.sql")


class NotADrills(Exception):
    """The instance is not one that a drill may break; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Topology:
    """The servers that a drill needs, as ``scripts/up`` takes them."""

    redis: str = "single"
    brokers: int = 1
    postgres: str = "async"

    def options(self) -> list[str]:
        """The options of scripts/up."""
        return [f"--{name}={value}" for name, value in asdict(self).items() if value != getattr(Topology(), name)]


@dataclass(frozen=True, slots=True)
class Gate:
    """How many the concert's shop holds and how fast people are let in."""

    capacity: int
    rate_per_s: float


class Stage:
    """A running instance, and what a drill may do to it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.stack = Stack(instance)
        self.undo = ExitStack()
        """What puts right what an incident has broken; closed at its end."""

    def url(self, target: str) -> str:
        """The API behind ``target``: gateway or localstack."""
        return self.instance.url("gateway") if target == "gateway" else deployed_api_url(self.instance) or ""

    def open_concert(self, title: str, gate: Gate, seats: int) -> Concert:
        """A new concert with at least so many seats. Returns when the API shows it: the replica has to learn of it."""
        concert_id, schedules = time.time_ns() // 1_000_000, -(-seats // _SEATS_PER_SCHEDULE)
        with connected(self.instance, self.instance.postgres_primary) as connection:
            connection.run(
                _OPEN_CONCERT,
                id=concert_id,
                title=title,
                capacity=gate.capacity,
                rate_per_s=gate.rate_per_s,
                schedules=schedules,
                seats=_SEATS_PER_SCHEDULE,
            )
        self._await_concert(f"{self.url('gateway')}/concerts/{concert_id}")
        return Concert(concert_id, tuple(concert_id * 100 + nth for nth in range(1, schedules + 1)))

    def kill(self, part: str) -> int:
        """Kill -9 the part's own process; its id. Raises StackError where it has none."""
        process = self.stack.supervisor.processes().get(part)
        if process is None or not process.pid:
            raise StackError(f"{part} has no process to kill: see scripts/status")
        os.kill(process.pid, signal.SIGKILL)
        return process.pid

    def kill_and_hold(self, part: str) -> int:
        """Kill -9 the part's own process and keep it down until ``stack.start``; its id. Raises StackError."""
        pid = self.kill(part)
        self.stack.stop(part)
        return pid

    @staticmethod
    def _await_concert(url: str) -> None:
        deadline_s = time.monotonic() + _REPLICA_S_MAX
        while (answer := httpx.get(url, trust_env=False, timeout=_REPLICA_S_MAX)).status_code != 200:
            if time.monotonic() > deadline_s:
                raise StackError(f"the new concert is not shown: GET {url} answers {answer.status_code}")
            time.sleep(0.05)


def instance_for_drills() -> Instance:
    """The instance in ENCORE_INSTANCE, else 'drill'. Raises NotADrills where somebody else works on it."""
    os.environ.setdefault("ENCORE_INSTANCE", INSTANCE)
    instance = Instance.load()
    if instance.name == "main" or (instance.ports and not _marker(instance).exists()):
        raise NotADrills(
            f"instance '{instance.name}' was not made for drills, which break it and forget its data:"
            f" leave ENCORE_INSTANCE unset (it is then '{INSTANCE}') or name one that does not exist"
        )
    return instance


def set_up(topology: Topology) -> Stage:
    """The instance of the drills with these servers: the one that is up, if it has them, else a new one.

    Prints its progress. Raises StackError and what else starting a stack raises.
    """
    instance = instance_for_drills()
    marker = _marker(instance)
    if instance.ports and json.loads(marker.read_text()) != asdict(topology):
        take_down()
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps(asdict(topology)))
    if up.run(["--no-tour", *topology.options()]):
        raise StackError("the instance of the drills did not come up (lines above)")
    instance = Instance.load()
    # The drill asks Redis itself and reads its people's papers, with the addresses and keys that the functions have.
    adopt_settings(instance)
    return Stage(instance)


def take_down() -> None:
    """Stop everything and forget the data; the records of the drills stay."""
    instance = Instance.load()
    with progress.step("take the instance of the drills down"):
        Stack(instance).down()
        for entry in instance.dir.iterdir():
            if entry.name != RECORDS:
                _remove(entry)


def _remove(entry: Path) -> None:
    remove: Callable[[Path], None] = shutil.rmtree if entry.is_dir() and not entry.is_symlink() else Path.unlink
    remove(entry)


def _marker(instance: Instance) -> Path:
    return instance.dir / _MARKER
