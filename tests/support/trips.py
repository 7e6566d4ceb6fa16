"""How often a request waits for another server: counted where this process waits, not where it says it does."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pg8000.core import CoreConnection
from redis.connection import Connection

from booking.payment.gateways import Gateway
from booking.platform.postgres import Server


class Trips(Counter[str]):
    """Trips to other servers by kind: redis, sql, gateway."""

    sql_waits: int = 0
    """Waits on a socket of Postgres: as many as statements, unless one is not prepared or not its own transaction."""


CountTrips = Callable[[], Any]


def trip_counter(monkeypatch: pytest.MonkeyPatch) -> CountTrips:
    """``with count() as trips``: what this thread asks of others in the block."""
    counted = threading.local()

    def counting(kind: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **options: Any) -> Any:
            trips = getattr(counted, "trips", None)
            if trips is not None and kind == "wait":
                trips.sql_waits += 1
            elif trips is not None:
                trips[kind] += 1
            return ask(*args, **options)

        return asked

    monkeypatch.setattr(Connection, "send_packed_command", counting("redis", Connection.send_packed_command))
    monkeypatch.setattr(Server, "_run", counting("sql", Server._run))
    monkeypatch.setattr(CoreConnection, "handle_messages", counting("wait", CoreConnection.handle_messages))
    monkeypatch.setattr(Gateway, "_ask", counting("gateway", Gateway._ask))

    @contextmanager
    def count() -> Iterator[Trips]:
        counted.trips = Trips()
        yield counted.trips
        counted.trips = None

    return count
