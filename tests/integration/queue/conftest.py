"""A real Redis and a real Postgres for the waiting line, and a line whose clock the test moves.

The two servers come from ENCORE_TEST_QUEUE_REDIS_URL and ENCORE_TEST_DATABASE_URL where those are set; else throw-away
ones are started on free loopback ports.
"""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pg8000.native
import pytest
import redis as redis_py

from booking.platform.migrate import migrate
from booking.platform.postgres import primary
from booking.platform.redis import redis
from booking.platform.settings import settings
from booking.queue import admissions, join_line, person_of, position, scripts
from booking.queue.keys import line_key, line_keys
from booking.queue.line import Turn

_POSTGRES_BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/usr/bin"))
_concert_ids = itertools.count(int(time.time()) % 1_000_000 * 1_000)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _serving(command: list[str], is_ready: Callable[[], Any]) -> Iterator[None]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 20
        while True:
            try:
                is_ready()
                break
            except Exception:
                if server.poll() is not None or time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # Postgres would wait for its clients at SIGTERM
        server.wait(20)


@pytest.fixture(scope="session")
def queue_redis_url() -> Iterator[str]:
    if url := os.environ.get("ENCORE_TEST_QUEUE_REDIS_URL"):
        yield url
        return
    port = _free_port()
    url = f"redis://127.0.0.1:{port}/0"
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _serving(command, lambda: redis_py.Redis.from_url(url).ping()):
        yield url


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    if url := os.environ.get("ENCORE_TEST_DATABASE_URL"):
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="encore-line-"))
    as_postgres: list[str] = []
    if os.geteuid() == 0:  # Postgres refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    port, data = _free_port(), str(folder / "data")
    try:
        initdb = [*as_postgres, str(_POSTGRES_BIN / "initdb"), "-D", data, "-U", "encore", "--auth=trust", "-N"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/")
        serve = [str(_POSTGRES_BIN / "postgres"), "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]

        def ask() -> None:
            at = {"host": "127.0.0.1", "port": port, "database": "postgres", "ssl_context": False}
            pg8000.native.Connection("encore", **at).close()

        with _serving([*as_postgres, *serve, "-c", "fsync=off"], ask):
            url = f"postgresql://encore@127.0.0.1:{port}/postgres"
            migrate(url)
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def encore_environment(queue_redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    environment = {
        "DATABASE_URL": database_url,
        "REPLICA_URL": database_url,
        "QUEUE_REDIS_URL": queue_redis_url,
        "LOCKS_REDIS_URL": queue_redis_url,
        "CACHE_REDIS_URL": queue_redis_url,
        "TOKEN_KEYS": "k1:" + "ab" * 32,
        "PERSON_SECRET": "cd" * 32,
        "DANAL_URL": "http://127.0.0.1:1",
        "PAYCO_URL": "http://127.0.0.1:1",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "EDGE_TRUST": "open",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"ENCORE_{name}", value)
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    settings.cache_clear()
    yield
    settings.cache_clear()


class Clock:
    """Moves the clock that the scripts read, by sending them another clock.lua: it survives a wiped Redis."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._real = scripts.CLOCK
        self._offset_us = 0

    def advance(self, seconds: float) -> None:
        self._offset_us += round(seconds * 1_000_000)
        moved = self._real.replace("local function clock_us()", "local function server_us()")
        moved += f"local function clock_us() return server_us() + {self._offset_us} end\n"
        self._monkeypatch.setattr(scripts, "CLOCK", moved)
        scripts.script.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    yield Clock(monkeypatch)
    monkeypatch.undo()
    scripts.script.cache_clear()


@dataclass
class Line:
    """One concert's line of a test's own."""

    concert_id: int
    clock: Clock
    tokens: dict[str, str] = field(default_factory=dict)

    def join(self, name: str) -> Turn:
        turn = join_line(self.concert_id, self.person(name))
        self.tokens[name] = turn.token
        return turn

    def poll(self, name: str) -> Turn:
        return position(self.tokens[name])

    def person(self, name: str) -> str:
        return person_of(f"{self.concert_id} {name}")

    def inside(self) -> int:
        return int(redis("queue").zcard(line_key(self.concert_id, "inside")))

    def gate(self, **fields: float | str) -> None:
        """Turn the gate's settings, as an operator does."""
        redis("queue").hset(line_key(self.concert_id, "gate"), mapping=fields)

    def forget(self) -> None:
        """Redis loses everything of this line."""
        redis("queue").delete(*line_keys(self.concert_id))

    def admissions(self) -> list[dict[str, Any]]:
        """What Postgres knows of the turns, oldest first, after a copy."""
        admissions.copy_admissions()
        columns = ("person", "number", "place", "entered_after", "claimed_at", "expires_at", "ended_at", "end_reason")
        rows = primary().rows(
            f"select {', '.join(columns)} from admission where concert_id = :concert_id order by number",
            concert_id=self.concert_id,
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.fixture
def open_line(clock: Clock) -> Iterator[Callable[..., Line]]:
    """Makes a concert with a gate: ``open_line(capacity=1, rate_per_s=200, opens_in_s=-60)``."""
    lines: list[Line] = []

    def make(capacity: int = 1000, rate_per_s: float = 200, opens_in_s: float = -60) -> Line:
        line = Line(next(_concert_ids), clock)
        primary().rows(
            "insert into concert (id, title, artist, venue, sales_open_at) values (:id, 't', 'a', 'v',"
            " clock_timestamp() + make_interval(secs => cast(:opens_in_s as double precision)))",
            id=line.concert_id,
            opens_in_s=opens_in_s,
        )
        primary().rows(
            "insert into gate_change (concert_id, epoch, state, capacity, rate_per_s, paused, reason)"
            " values (:id, 1, 'open', :capacity, cast(:rate as numeric), false, 'test')",
            id=line.concert_id,
            capacity=capacity,
            rate=str(rate_per_s),
        )
        lines.append(line)
        return line

    yield make
    for line in lines:
        line.forget()
        # Other tests' copies need not look at it any more.
        primary().rows(
            "update concert set sales_closed_at = now() - interval '2 days' where id = :id", id=line.concert_id
        )
