"""The line's tests run on every way of running Redis."""

import pytest

from support.redis import TOPOLOGIES


@pytest.fixture(params=TOPOLOGIES)
def redis_topology(request: pytest.FixtureRequest) -> str:
    """The whole suite of the line runs on each: ``-k sentinel``."""
    return str(request.param)
