"""Deploying the schema: again, over an older version, and with the seats partitioned."""

from collections.abc import Callable
from pathlib import Path

import pytest

import booking
from booking.platform.migrate import migrate
from booking.platform.postgres import Server, primary
from support.shop import Shop

_FUNCTION_FILES = sorted(Path(booking.__file__).parent.glob("*/sql/functions/*.sql"))


def test_every_function_is_in_the_file_of_its_name() -> None:
    for path in _FUNCTION_FILES:
        assert f"create or replace function {path.stem}(" in path.read_text()


def test_a_deployment_replaces_functions_whose_result_or_arguments_have_changed(
    make_database: Callable[[str], str],
) -> None:
    url = make_database("encore_older")
    server = Server(url)
    for older in (
        "drop function rfc3339(timestamptz)",
        "create function rfc3339(timestamptz) returns integer language sql as 'select 1'",
        "create function seats_of_person(text) returns integer language sql as 'select 1'",
    ):
        server.rows(older)
    server.close()

    migrate(url)

    server = Server(url)
    assert server.value("select rfc3339('2026-11-22 21:00+00')") == "2026-11-22T21:00:00.000Z"
    assert server.value("select count(*) from pg_proc where proname = 'seats_of_person'") == 1
    server.close()


def test_partitioned_seats_sell_as_well(
    make_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, use_settings: Callable[..., None]
) -> None:
    monkeypatch.setenv("ENCORE_SEAT_PARTITIONS", "4")
    use_settings(database_url=make_database("encore_partitioned"), replica_url="postgresql://nobody@127.0.0.1:1/none")
    shop = Shop.open(wait=False)

    shop.hold([1, 2])

    assert shop.seat(1)["state"] == "held"
    assert primary().value("select count(*) from pg_inherits where inhparent = 'seat'::regclass") == 4
