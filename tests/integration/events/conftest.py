"""A database of these tests' own: what they sell no gateway knows of, which the audit of the other one would find."""

from collections.abc import Callable

import pytest

from booking.platform.postgres import primary


@pytest.fixture(scope="session")
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_events")


@pytest.fixture(autouse=True)
def nothing_left(encore_environment: None) -> None:
    """What an earlier test has not published must not come into this one's topic, nor its dead letters be redriven."""
    primary().rows("update outbox set published_at = now() where published_at is null")
    primary().rows("delete from dead_letter")
