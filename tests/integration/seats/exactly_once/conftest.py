"""The proof that no seat is ever sold twice has a database and a payment firm of its own: its audits see no more."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from booking.platform.settings import settings
from encore_stack.instance import Instance
from support.gateway_process import GatewayProcess
from support.gateways import SimulatedGateway, start_gateway
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
        danal = start_gateway(processes, "danal", free_port(), tmp_path_factory.mktemp("danal"))
        yield {"danal": danal, "payco": danal}


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
