"""Seat locks, cached seat maps and holds are tested on every way in which Redis is run, and on seats in partitions.

Where Redis is split, the seats are in partitions: each test runs with and without them, and none runs once more for it.
"""

from collections.abc import Callable

import pytest

from booking.payment.gateways import firms
from support.gateways import SimulatedGateway
from support.redis import TOPOLOGIES

_PARTITIONED = "split"

Gateways = dict[str, SimulatedGateway]


@pytest.fixture(params=TOPOLOGIES, ids=lambda name: f"{name}-partitions" if name == _PARTITIONED else name)
def redis_topology(request: pytest.FixtureRequest) -> str:
    """``-k cluster``, for example."""
    return str(request.param)


@pytest.fixture
def database_url(database_url: str, redis_topology: str, request: pytest.FixtureRequest) -> str:
    if redis_topology == _PARTITIONED:
        return str(request.getfixturevalue("partitioned_database_url"))
    return database_url


@pytest.fixture(scope="session")
def gateways_of_partitions(make_gateways: Callable[[], Gateways]) -> Gateways:
    return make_gateways()


@pytest.fixture
def gateways(
    gateways: Gateways, redis_topology: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Gateways:
    if redis_topology != _PARTITIONED:
        return gateways
    monkeypatch.setattr(firms, "_gateways", {})  # this process knows the others by their names
    partitioned: Gateways = request.getfixturevalue("gateways_of_partitions")
    return partitioned
