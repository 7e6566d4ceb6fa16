"""Deploying the schema: again, and over an older version."""

from collections.abc import Callable
from pathlib import Path

import booking
from booking.operations.audit import Auditor
from booking.platform.migrate import migrate
from booking.platform.postgres import Server

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


def test_the_lines_record_of_an_older_version_can_be_audited(
    make_database: Callable[[str], str], use_settings: Callable[..., None]
) -> None:
    url = make_database("encore_first_revision")
    server = Server(url)
    server.rows("drop schema public cascade")
    server.rows("create schema public")
    use_settings(database_url=url)
    migrate(url, "0001")
    for older in (
        "insert into concert (id, title, artist, venue, sales_open_at) values (1, 't', 'a', 'v', now())",
        "insert into gate_change (concert_id, epoch, state, capacity, rate_per_s, paused, reason, changed_at) values"
        " (1, 1, 'open', 1, 1, false, 'started', '2026-01-01'), (1, 1, 'open', 2, 1, false, 'more', '2026-01-03')",
        "insert into admission (pass_id, concert_id, person, epoch, number, place, admitted_at, expires_at)"
        " select 'p' || day, 1, 'p', 1, day, day, '2026-01-01'::timestamptz + make_interval(days => day), '2026-01-09'"
        " from generate_series(1, 3) day",
    ):
        server.rows(older)

    migrate(url)

    assert server.rows("select number, gate_change_id from admission order by number") == [[1, 1], [2, 2], [3, 2]]
    assert server.rows("select action from gate_change order by id") == [["started"], ["set"]]
    auditor = Auditor(url, [])
    assert [finding for found in auditor.audit().violations.values() for finding in found] == [
        ("admission p3", "made 3 inside concert 1; gate change 2 allows 2")
    ]
    auditor.close()
    server.close()
