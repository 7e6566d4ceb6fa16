"""Real servers for the integration tests: a database of their own on the test stack's Postgres, Redis and Kafka.

The test stack (``ENCORE_INSTANCE=test``) is brought up by ``scripts/test``. Its deployed functions work on the database
``encore``; these tests have another one, so that no background loop tidies up under them.
"""

import gc
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import httpx
import pytest

from booking.operations.audit import Auditor, Verdict
from booking.platform import postgres
from booking.platform.migrate import migrate
from booking.platform.settings import settings
from booking.queue import scripts
from booking.tickets.relay import Relay
from encore_stack.instance import Instance, function_environment
from encore_stack.stack import Stack
from support.circuits import forget_circuits
from support.events import create_topics
from support.gateways import SimulatedGateway, start_gateway
from support.line import Clock, Line, own_clock
from support.redis import RedisStacks, heal
from support.shop import Shop
from support.sound import NO_RELAY
from support.superuser import run_as_superuser
from support.trips import CountTrips, trip_counter

DATABASE = "encore_integration"
SEAT_PARTITIONS = 16
REDIS_DATABASE = 1


@pytest.fixture(scope="session")
def instance() -> Instance:
    instance = Instance.load(os.environ.get("ENCORE_INSTANCE", "test"))
    if "postgres" not in instance.ports:
        pytest.fail("the test stack is not up: run scripts/test, or ENCORE_INSTANCE=test scripts/up --no-tour", False)
    return instance


@pytest.fixture(scope="session")
def make_database(instance: Instance) -> Iterator[Callable[..., str]]:
    """Makes an empty, migrated database of this name and returns its URL; dropped at the end. ``seat_partitions``: its
    seats are split in so many. One is migrated, the others are copies of it: that takes half the time."""
    made: set[str] = set()

    def create(name: str, template: str) -> str:
        run_as_superuser(
            instance,
            f"drop database if exists {name} with (force)",
            f"create database {name} owner encore template {template}",
        )
        made.add(name)
        return instance.database_url().rsplit("/", 1)[0] + f"/{name}"

    def make(name: str, seat_partitions: int = 0) -> str:
        migrated = f"encore_migrated_{seat_partitions}"
        if migrated not in made:
            with patch.dict(os.environ, ENCORE_SEAT_PARTITIONS=str(seat_partitions)):
                migrate(create(migrated, "template1"))
        return create(name, migrated)

    yield make
    run_as_superuser(instance, *(f"drop database if exists {name} with (force)" for name in made))


@pytest.fixture(scope="session")
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database(DATABASE)


@pytest.fixture(scope="session")
def partitioned_database_url(make_database: Callable[..., str]) -> str:
    """Of a database whose seats are partitioned: see the seats' conftest."""
    return make_database(f"{DATABASE}_partitioned", seat_partitions=SEAT_PARTITIONS)


@pytest.fixture(scope="session")
def redis_stacks() -> Iterator[RedisStacks]:
    stacks = RedisStacks()
    yield stacks
    stacks.close()


@pytest.fixture
def redis_topology() -> str:
    """How Redis is run. The suites of the line, the locks and the cache run on every topology: see their conftest. A
    test that is about some of them says so: see ``runs_on``."""
    return "single"


@pytest.fixture
def redis_stack(instance: Instance, redis_stacks: RedisStacks, redis_topology: str) -> Stack:
    """The stack whose Redis the test uses: the test stack where it is a single server."""
    return Stack(instance) if redis_topology == "single" else redis_stacks.get(redis_topology)


@pytest.fixture
def healed(redis_stack: Stack) -> Iterator[None]:
    """What the test ends or stops of Redis runs again afterwards."""
    yield
    heal(redis_stack)


@pytest.fixture
def redis_urls(redis_stack: Stack) -> dict[str, str]:
    return redis_stack.instance.redis_urls(REDIS_DATABASE)


@pytest.fixture(scope="session")
def make_gateways(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[Callable[[], dict[str, SimulatedGateway]]]:
    """Starts both payment firms, whose books are of one database each: the audit holds all of them against it."""
    with ExitStack() as processes:
        yield lambda: {
            name: start_gateway(processes, name, free_port(), tmp_path_factory.mktemp(name))
            for name in ("danal", "payco")
        }


@pytest.fixture(scope="session")
def gateways(make_gateways: Callable[[], dict[str, SimulatedGateway]]) -> dict[str, SimulatedGateway]:
    return make_gateways()


@pytest.fixture
def firms(gateways: dict[str, SimulatedGateway]) -> Iterator[dict[str, SimulatedGateway]]:
    """Both payment firms: well again afterwards, and nobody remembers that they were not."""
    yield gateways
    for each in gateways.values():
        each.well()
    forget_circuits()


@pytest.fixture
def danal(firms: dict[str, SimulatedGateway]) -> SimulatedGateway:
    return firms["danal"]


@pytest.fixture
def payco(firms: dict[str, SimulatedGateway]) -> SimulatedGateway:
    return firms["payco"]


@pytest.fixture(autouse=True)
def encore_environment(
    instance: Instance,
    database_url: str,
    redis_urls: dict[str, str],
    gateways: dict[str, SimulatedGateway],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    environment = function_environment(instance) | {
        "ENCORE_DATABASE_URL": database_url,
        "ENCORE_REPLICA_URL": instance.replica_url.rpartition("/")[0] + f"/{database_url.rpartition('/')[2]}",
        "ENCORE_QUEUE_REDIS_URL": redis_urls["queue"],
        "ENCORE_LOCKS_REDIS_URL": redis_urls["locks"],
        "ENCORE_CACHE_REDIS_URL": redis_urls["cache"],
        "ENCORE_DANAL_URL": gateways["danal"].url,
        "ENCORE_PAYCO_URL": gateways["payco"].url,
        "POWERTOOLS_METRICS_DISABLED": "true",
        "POWERTOOLS_SERVICE_NAME": "tests",
        "POWERTOOLS_LOG_LEVEL": "CRITICAL",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="session")
def gateway_app() -> Callable[..., object]:
    from fast_gateway.gateway import Gateway
    from fast_gateway.settings import read_template

    app: Callable[..., object] = Gateway(read_template())
    return app


@pytest.fixture
def http(gateway_app: Callable[..., object]) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.WSGITransport(app=gateway_app), base_url="http://encore/") as client:  # type: ignore[arg-type]
        yield client


@pytest.fixture
def topic(instance: Instance, use_settings: Callable[..., None]) -> str:
    """A topic of this test's own, and its dead-letter topic."""
    name = f"test-{uuid.uuid4().hex}"
    create_topics(instance.kafka_bootstrap_servers, name, f"{name}.dead-letter")
    use_settings(reservation_topic=name, dead_letter_topic=f"{name}.dead-letter")
    return name


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as relay:
        yield relay


@pytest.fixture
def shop() -> Shop:
    return Shop.open()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    with own_clock(monkeypatch) as clock:
        yield clock


@pytest.fixture
def open_line(clock: Clock) -> Iterator[Callable[..., Line]]:
    """Makes a concert with a gate: ``open_line(capacity=1, rate_per_s=200, opens_in_s=-60)``."""
    lines: list[Line] = []

    def make(**options: Any) -> Line:
        lines.append(Line.open(clock, **options))
        return lines[-1]

    yield make
    for line in lines:
        line.retire()


@pytest.fixture
def break_script(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Takes a guard out of the line's Lua: replaces its one occurrence."""

    def replace(guard: str, instead: str) -> None:
        assert scripts.SHARED.count(guard) == 1
        monkeypatch.setattr(scripts, "SHARED", scripts.SHARED.replace(guard, instead))
        scripts.functions.cache_clear()

    yield replace
    scripts.functions.cache_clear()


@pytest.fixture
def audit(database_url: str, gateways: dict[str, SimulatedGateway]) -> Iterator[Callable[[], Verdict]]:
    auditor = Auditor(database_url, [gateway.panel_url for gateway in gateways.values()], without=NO_RELAY)
    yield auditor.audit
    auditor.close()


@pytest.fixture
def use_settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AbstractContextManager[None]]:
    """Set settings to the end of the test, or of a with block: ``use_settings(hold_ttl_s=1)``."""

    @contextmanager
    def restored(before: dict[str, str]) -> Iterator[None]:
        yield
        apply(before)

    def apply(environment: dict[str, str]) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings.cache_clear()

    def use(**values: object) -> AbstractContextManager[None]:
        changed = {f"ENCORE_{name.upper()}": str(value) for name, value in values.items()}
        before = {name: os.environ.get(name, "") for name in changed}  # empty means the default
        apply(changed)
        return restored(before)

    return use


@pytest.fixture
def count_trips(monkeypatch: pytest.MonkeyPatch) -> CountTrips:
    return trip_counter(monkeypatch)


@pytest.fixture(autouse=True)
def crowd_gone(request: pytest.FixtureRequest) -> Iterator[None]:
    """The connections of a crowd's threads are ended with the test: Postgres takes 200, and they would wait for the
    garbage collector."""
    yield
    if request.node.get_closest_marker("race"):
        gc.collect()


@pytest.fixture(scope="session", autouse=True)
def connections_given_back() -> Iterator[None]:
    yield
    for server in postgres._servers.__dict__.get("by_url", {}).values():
        server.close()
