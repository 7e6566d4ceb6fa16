"""The suite of the line runs on every way to run Redis."""

import pytest

from support.redis import TOPOLOGIES


@pytest.fixture(params=TOPOLOGIES)
def redis_topology(request: pytest.FixtureRequest) -> str:
    """The whole suite of the line runs on each: ``-k sentinel``."""
    return str(request.param)
