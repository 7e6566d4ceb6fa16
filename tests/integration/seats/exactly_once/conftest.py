"""The proof that no seat is ever sold twice has a database and a payment firm of its own: its audits see no more."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from booking.platform.postgres import primary
from booking.platform.settings import settings
from encore_stack.instance import Instance
from support.gateway_process import GatewayProcess
from support.gateways import SimulatedGateway, start_gateway
from support.guards import Guard
from support.proxy import Proxy, pass_on


@pytest.fixture
def redis_topology() -> str:
    """These tests are about what Postgres decides; ``test_hold_races`` runs on every topology of Redis."""
    return "single"


@pytest.fixture(scope="package")
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_exactly_once")


@pytest.fixture(scope="package")
def gateways(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[dict[str, SimulatedGateway]]:
    with ExitStack() as processes:
        yield {
            name: start_gateway(processes, name, free_port(), tmp_path_factory.mktemp(name))
            for name in ("danal", "payco")
        }


@pytest.fixture(scope="package")
def processes() -> Iterator[ExitStack]:
    """What runs until the last of these tests is over: starting a gateway takes longer than most races."""
    with ExitStack() as processes:
        yield processes


@pytest.fixture(scope="package")
def started() -> dict[str, GatewayProcess]:
    return {}


@pytest.fixture
def start_fast_gateway(
    processes: ExitStack, started: dict[str, GatewayProcess], free_port: Callable[[], int]
) -> Callable[..., GatewayProcess]:
    """The fast gateway of this name, started by who first asks: ``start_fast_gateway("odd", locks_redis_url="…")``."""

    def start(name: str, **options: Any) -> GatewayProcess:
        if name not in started:
            started[name] = GatewayProcess(processes, free_port(), **options)
        return started[name]

    return start


@pytest.fixture
def url(start_fast_gateway: Callable[..., GatewayProcess]) -> str:
    """A fast gateway with nothing in its way."""
    return start_fast_gateway("sound").url


@pytest.fixture(scope="package")
def wire(processes: ExitStack, instance: Instance) -> Proxy:
    return Proxy(processes, instance.ports["postgres"])


@pytest.fixture
def proxy(wire: Proxy) -> Iterator[Proxy]:
    """Between ``fragile`` and the primary."""
    yield wire
    wire.rule = pass_on


@pytest.fixture
def fragile(proxy: Proxy, start_fast_gateway: Callable[..., GatewayProcess]) -> GatewayProcess:
    """A fast gateway whose connections to the primary can be cut, and whose workers can be killed."""
    url = settings().database_url
    return start_fast_gateway("fragile", database_url=url.replace(f":{urlsplit(url).port}/", f":{proxy.port}/"))


@pytest.fixture(scope="package")
def unguarded_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_unguarded")


@pytest.fixture
def take_out(unguarded_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Guard], None]]:
    """Takes a guard out of a database of these tests' own, on which everybody works now, and without the Redis locks.

    Afterwards it is empty and has its guards again.
    """
    monkeypatch.setenv("ENCORE_DATABASE_URL", unguarded_url)
    monkeypatch.setenv("ENCORE_LOCKS_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    undo: list[str] = []
    yield lambda guard: undo.append(guard.apply())
    primary().rows("truncate concert, reservation, payment, seat, seat_ledger, idempotency, outbox, admission cascade")
    for statement in reversed(undo):
        primary().rows(statement)
    settings.cache_clear()
