"""The proof that no seat is ever sold twice has a database and a payment firm of its own: its audits see no more."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from booking.platform.postgres import primary, writer_url
from booking.platform.postgres_urls import parse_database_url
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


@pytest.fixture(autouse=True)
def nobody_knows_other_firms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process keeps the payment firms that it has met, by name; the other tests' have the same names."""
    monkeypatch.setattr("booking.payment.gateways.firms._gateways", {})


@pytest.fixture(scope="package")
def processes() -> Iterator[ExitStack]:
    """What runs until the last of these tests is over: starting a gateway takes longer than most races."""
    with ExitStack() as processes:
        yield processes


@pytest.fixture
def start_fast_gateway(free_port: Callable[[], int]) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts a fast gateway for this test: ``start_fast_gateway(workers=1, locks_redis_url="redis://…")``."""
    with ExitStack() as processes:
        yield lambda **options: GatewayProcess(processes, free_port(), **options)


@pytest.fixture(scope="package")
def started() -> dict[str, GatewayProcess]:
    """The gateways that stay up, by name. Whoever asks first starts them: only then the environment is a test's."""
    return {}


@pytest.fixture
def url(processes: ExitStack, started: dict[str, GatewayProcess], free_port: Callable[[], int]) -> str:
    """A fast gateway with nothing in its way."""
    if "sound" not in started:
        started["sound"] = GatewayProcess(processes, free_port())
    return started["sound"].url


@pytest.fixture(scope="package")
def wire(processes: ExitStack, instance: Instance) -> Proxy:
    return Proxy(processes, instance.ports[instance.postgres_primary])


@pytest.fixture
def proxy(wire: Proxy) -> Iterator[Proxy]:
    """Between ``fragile`` and the primary."""
    yield wire
    wire.rule = pass_on


@pytest.fixture
def fragile(
    proxy: Proxy, processes: ExitStack, started: dict[str, GatewayProcess], free_port: Callable[[], int]
) -> GatewayProcess:
    """A fast gateway whose connections to the primary can be cut, and whose workers can be killed."""
    if "fragile" not in started:
        url = parse_database_url(settings().database_url).server_url(("127.0.0.1", proxy.port))
        started["fragile"] = GatewayProcess(processes, free_port(), database_url=url)
    return started["fragile"]


@pytest.fixture(scope="package")
def unguarded_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_unguarded")


@pytest.fixture(scope="package")
def unguarded_danal(
    processes: ExitStack, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> SimulatedGateway:
    """Whom they pay who work on that database: no audit compares its book with another."""
    return start_gateway(processes, "danal", free_port(), tmp_path_factory.mktemp("unguarded"))


@pytest.fixture
def take_out(
    unguarded_url: str, unguarded_danal: SimulatedGateway, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Guard], None]]:
    """Takes a guard out of a database of these tests' own, on which everybody works now, and without the Redis locks.

    Afterwards it is empty and has its guards again.
    """
    monkeypatch.setenv("ENCORE_DATABASE_URL", unguarded_url)
    monkeypatch.setenv("ENCORE_REPLICA_URL", writer_url(unguarded_url))  # no replica, which would be behind
    monkeypatch.setenv("ENCORE_DANAL_URL", unguarded_danal.url)
    monkeypatch.setenv("ENCORE_LOCKS_REDIS_URL", "redis://127.0.0.1:1/0")
    settings.cache_clear()
    undo: list[str] = []
    yield lambda guard: undo.append(guard.apply())
    primary().rows("truncate concert, reservation, payment, seat, seat_ledger, idempotency, outbox, admission cascade")
    for statement in reversed(undo):
        primary().rows(statement)
    settings.cache_clear()
