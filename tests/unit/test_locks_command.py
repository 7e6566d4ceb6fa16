"""scripts/locks: what it prints, and its exit codes; the history is stood in for."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from booking.seats.lock_history import Contention, EndedWait, HeldLock, LockHistory
from encore_stack.commands import locks
from encore_stack.instance import Instance

HELD = HeldLock(schedule_id=701, seat=3, number=1_795_577_966_838, person="anna", attempt="a1", left_ms=2_950)
CONTENDED = [
    Contention(701, 3, waits=12, refused=4, waited_ms=1_200, waited_ms_max=998, expired=1),
    Contention(702, 150, waits=1, refused=0, waited_ms=35, waited_ms_max=35, expired=0),
]
REFUSED = EndedWait("2026-11-25T10:00:00.123Z", 701, 3, "refused", 998, "ben", "b1", "anna", "a1", 7)
EXPIRED = EndedWait("2026-11-25T10:00:00.100Z", 701, 3, "expired", 0, None, None, "carl", "c1", 6)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``history`` is what there is, or the fault that comes of asking; ``asked`` for which schedules."""
    found = SimpleNamespace(history=LockHistory([HELD], CONTENDED, [REFUSED, EXPIRED]), asked=[], looks=0)

    def read(schedule_id: int | None, waits_max: int) -> LockHistory:
        found.asked.append(schedule_id)
        if isinstance(found.history, Exception):
            raise found.history
        return replace(found.history, waits=found.history.waits[:waits_max])

    monkeypatch.setattr(locks, "read_lock_history", read)
    monkeypatch.setattr(locks, "adopt_settings", lambda _: None)
    monkeypatch.setattr(Instance, "load_existing", lambda: None)
    return found


def test_the_history_is_shown_as_tables(found: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert locks.run([]) == 0

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "held just now: 1",
        "schedule seat lock left ms person attempt",
        "701 3 1795577966838 2950 anna a1",
        "contended: seats 2, schedules 2, waits 13, refused 4, locks that ran out 1",
        "schedule seat waits refused mean ms most ms ran out",
        "701 3 12 4 100 998 1",
        "702 150 1 0 35 35 0",
        "the newest waits",
        "at schedule seat ended waited ms who waited for whose lock number",
        "2026-11-25T10:00:00.123Z 701 3 refused 998 ben anna 7",
        "2026-11-25T10:00:00.100Z 701 3 expired - - carl 6",
    ]
    assert found.asked == [None]


def test_one_schedule_and_fewer_rows_may_be_asked_for(
    found: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert locks.run(["701", "-n", "1", "--json"]) == 0

    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found.asked == [701]
    assert shown["totals"] == {"schedules": 2, "seats": 2, "waits": 13, "refused": 4, "expired": 1}
    assert shown["held"] == [
        {"schedule_id": 701, "seat": 3, "number": HELD.number, "person": "anna", "attempt": "a1", "left_ms": 2950}
    ]
    assert [(seat["seat"], seat["waits"], seat["waited_ms_mean"]) for seat in shown["contended"]] == [(3, 12, 100.0)]
    assert [(wait["ended"], wait["holder_number"]) for wait in shown["waits"]] == [("refused", 7)]


def test_nothing_is_no_fault(found: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    found.history = LockHistory([], [], [])

    assert locks.run([]) == 0

    assert capsys.readouterr().out.splitlines() == [
        "nobody holds a seat's lock",
        "nobody has had to wait for a seat in the last 24 hours",
    ]


def test_without_redis_it_says_so(found: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    found.history = RedisConnectionError("refused")

    assert locks.run([]) == 1

    told = capsys.readouterr()
    assert told.out == ""
    assert "error: the Redis of the seats' locks does not answer (refused): sales go on" in told.err


def test_watching_goes_on_without_redis_and_ends_with_ctrl_c(
    found: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        found.looks += 1
        if found.looks == 3:
            raise KeyboardInterrupt
        found.history = RedisConnectionError("refused") if found.looks == 1 else LockHistory([], [], [])

    monkeypatch.setattr(locks, "time", SimpleNamespace(sleep=sleep))

    assert locks.run(["--watch", "--json"]) == 0

    told = capsys.readouterr()
    assert [len(json.loads(line)["waits"]) for line in told.out.splitlines()] == [2, 0]
    assert "does not answer" in told.err
