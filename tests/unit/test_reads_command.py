"""What scripts/reads tells people."""

from typing import Any

import pytest

from booking.seats.reads import ReadsChange
from encore_stack.commands.reads import _done, as_text

_READS: dict[str, Any] = {"concert_id": 7, "title": "Encore Night", "source": "database", "schedules": 4, "changes": []}


@pytest.mark.parametrize(
    ("source", "told", "words"),
    [
        ("cache", {"maps": 0, "list": False}, "everybody: from the cache"),
        ("database", {"maps": 4, "list": True}, "everybody: past the cache"),
        ("database", {"maps": 3, "list": True}, "3 of 4 seat maps and the schedules: past the cache; told"),
        ("database", {"maps": 4, "list": False}, "4 of 4 seat maps and the schedules not: past the cache; told again"),
        ("database", {"maps": 0, "list": False}, "everybody: from the cache; told again within 5 s"),
        ("cache", None, "Redis is away: everybody reads from the database"),
    ],
)  # fmt: skip
def test_it_shows_what_is_set_and_what_was_told(source: str, told: object, words: str) -> None:
    shown = as_text(_READS | {"source": source, "told": told})

    assert shown.startswith(f"concert 7  Encore Night\n  reads      from the {source}\n  told       {words}")
    assert shown.endswith("\n  none: reads are as they come, from the cache")


def test_it_shows_who_changed_it_and_why() -> None:
    changes = [
        {"at": "2026-11-25T03:00:00Z", "source": "cache", "by": "root@here", "reason": "cache"},
        {"at": "2026-11-25T02:00:00Z", "source": "database", "by": "on_reads_command", "reason": "hit rate"},
    ]

    shown = as_text(_READS | {"told": None, "changes": changes})

    assert shown.endswith(
        "changes, newest first\n"
        "  2026-11-25T03:00:00Z  cache      root@here\n"
        "  2026-11-25T02:00:00Z  database   on_reads_command: hit rate"
    )


def test_it_says_what_a_change_did() -> None:
    about = "concert 7: seat maps of 100 schedules, and their list"
    assert _done(ReadsChange(7, "database", 100, in_force=True)) == f"{about}: from the database"
    assert _done(ReadsChange(7, "cache", 100, in_force=True)) == f"{about}: from the cache, nothing is cached yet"
    assert "Redis is away" in _done(ReadsChange(7, "database", 100, in_force=False))
