"""What scripts/dead-letters tells of one, and of what it did."""

import base64
from typing import Any

import pytest

from booking.events.dead_letters import NoDeadLetter
from encore_stack.commands import dead_letters
from encore_stack.commands.dead_letters import as_text, run

LETTER = {
    "id": 7, "state": "waiting", "consumer": "tickets", "event_id": "e", "type": "reservation.confirmed",
    "reservation_id": "r-1", "correlation_id": "abc", "topic": "reservation-events", "partition": 3, "offset": 15,
    "error": "DatabaseBusy('busy')", "transient": True, "attempts": 5, "redrives": 2,
    "first_seen_at": "2026-11-25T10:00Z", "last_seen_at": "2026-11-25T11:00Z",
    "redriven_at": "2026-11-25T10:30Z", "discarded_at": None, "discarded_by": None,
    "discard_reason": None, "applied_at": None, "key": base64.b64encode(b"r-1").decode(), "value": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def letters(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the database has."""
    there = [LETTER]

    def find(letter_id: int) -> dict[str, Any]:
        for letter in there:
            if letter["id"] == letter_id:
                return letter
        raise NoDeadLetter(f"there is no dead letter {letter_id}")

    monkeypatch.setattr(dead_letters, "adopt_settings", lambda _: None)
    monkeypatch.setattr(dead_letters.Instance, "load_existing", lambda: None)
    monkeypatch.setattr(dead_letters, "list_dead_letters", lambda state, limit: there)
    monkeypatch.setattr(dead_letters, "find_dead_letter", find)
    monkeypatch.setattr(dead_letters, "redrive", lambda ids, limit: [one["id"] for one in there][:limit])
    monkeypatch.setattr(dead_letters, "discard", lambda letter_id, reason, by: there.append(find(letter_id)))
    return there


def test_what_is_known_of_one_is_told() -> None:
    told = as_text(LETTER)

    assert "7  2026-11-25T11:00Z  waiting  reservation.confirmed of reservation r-1  at tickets\n" in told
    assert "transient, 5 attempts: DatabaseBusy('busy')" in told
    assert "from reservation-events, partition 3, offset 15" in told
    assert "sent back 2 times, last 2026-11-25T10:30Z" in told
    assert "key    r-1\n" in told and told.endswith("value  none")


def test_a_record_that_is_no_text_is_shown_without_control_characters() -> None:
    told = as_text(LETTER | {"type": None, "reservation_id": None, "value": base64.b64encode(b"\xff\x1b[2J").decode()})

    assert "unreadable  at tickets" in told
    assert told.endswith(r"value  b'\xff\x1b[2J'")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"state": "redriven", "applied_at": "2026-11-25T12:00Z"}, "redriven, took effect 2026-11-25T12:00Z"),
        (
            {"state": "discarded", "discarded_by": "me@here", "discard_reason": "a test"},
            "discarded by me@here: a test",
        ),
    ],
)
def test_what_became_of_one_is_told(changed: dict[str, str], words: str) -> None:
    assert words in as_text(LETTER | changed)


def test_nothing_is_told_as_nothing(letters: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    letters.clear()
    assert run(["list"]) == 0
    assert capsys.readouterr().out == "no dead letters that are waiting (--state all: any)\n"


def test_what_could_not_be_sent_back_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["redrive", "7", "8"]) == 1

    told = capsys.readouterr()
    assert told.out == "sent back: 7\n"
    assert "not sent back: 8: over the limit (100), or not waiting" in told.err


def test_one_that_is_not_there_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["show", "9"], ["discard", "9", "--reason", "a test"]):
        assert run(command) == 1
        assert "there is no dead letter 9" in capsys.readouterr().err
