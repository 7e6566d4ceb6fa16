"""Seat locks and cached seat maps are tested on every way in which Redis is run."""

import pytest

from support.redis import TOPOLOGIES


@pytest.fixture(params=TOPOLOGIES)
def redis_topology(request: pytest.FixtureRequest) -> str:
    """``-k cluster``, for example."""
    return str(request.param)
