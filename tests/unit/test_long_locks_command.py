"""What scripts/long-locks tells of sessions that hold locks, of the record, and of an end."""

from typing import Any

import pytest

from booking.operations.long_locks import NoLockHolder
from encore_stack.commands import long_locks
from encore_stack.commands.long_locks import as_text, run

HOLDER = {
    "pid": 4711, "started_at": "2026-11-25T04:00:00.123456+00:00", "held_s": 7.25, "role": "operator",
    "application_name": "psql", "client": "10.0.0.7", "state": "idle in transaction", "query": "select *\n from seat",
    "holds": ["reservation", "seat"], "waiting": 3,
}  # fmt: skip
ENDED = HOLDER | {
    "found_at": "2026-11-25T04:00:07.4+00:00", "ended_at": "2026-11-25T04:00:07.5+00:00", "ended_by": "somebody@here",
    "fault": None,
}  # fmt: skip


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the database says."""
    says: dict[str, Any] = {"now": [], "record": [], "end": ENDED}

    def end(pid: int, ended_by: str) -> dict[str, Any]:
        if says["end"] is None:
            raise NoLockHolder(f"session {pid} holds no locks of the sale (any more)")
        return says["end"] | {"pid": pid}

    monkeypatch.setattr(long_locks, "adopt_settings", lambda _: None)
    monkeypatch.setattr(long_locks.Instance, "load_existing", lambda: None)
    monkeypatch.setattr(long_locks, "settings", lambda: type("Settings", (), {"long_lock_s_max": 5.0}))
    monkeypatch.setattr(long_locks, "lock_holders", lambda: says["now"])
    monkeypatch.setattr(long_locks, "long_lock_record", lambda limit: says["record"][:limit])
    monkeypatch.setattr(long_locks, "end_lock_holder", end)
    return says


def test_nothing_is_told_as_nothing(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert capsys.readouterr().out.count("  nothing\n") == 2


def test_holders_and_the_record_are_told(answers: dict[str, Any]) -> None:
    refused = ENDED | {"ended_at": None, "ended_by": None, "fault": "must be a superuser", "waiting": 1}
    over = refused | {"ended_at": "2026-11-25T05:00:00+00:00", "ended_by": "itself", "waiting": 0}

    told = as_text([HOLDER, HOLDER | {"application_name": "encore-maintenance"}], [over, refused, ENDED])

    assert "pid 4711  operator from 10.0.0.7 (psql)  7.2 s  idle in transaction, 3 wait\n" in told
    assert "reservation, seat: select * from seat" in told
    assert "(encore-maintenance)  7.2 s  idle in transaction, 3 wait, left alone by the job" in told
    assert "2026-11-25T04:00:07Z  pid 4711" in told and "3 waited; ended by somebody@here" in told
    assert "1 waited; still there: must be a superuser" in told
    assert "nobody waited; ended by itself at 2026-11-25T05:00:00Z" in told


def test_an_end_is_told_and_one_that_fails_ends_with_1(
    answers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--end", "4711"]) == 0
    assert "ended by somebody@here" in capsys.readouterr().out

    answers["end"] = ENDED | {"ended_at": None, "ended_by": None, "fault": "must be a superuser"}
    assert run(["--end", "4711"]) == 1
    assert "session 4711 is still there: must be a superuser" in capsys.readouterr().err

    answers["end"] = None
    assert run(["--end", "12"]) == 1
    assert "session 12 holds no locks of the sale" in capsys.readouterr().err
