"""scripts/locks on a running stack: what people have fought over through its API is what it shows."""

import json
import subprocess
from collections.abc import Callable, Iterator

import httpx
import pytest

from booking.platform.settings import settings
from booking.seats.locks import SeatLocks, seat_locks
from encore_stack.instance import Instance, function_environment

Script = Callable[..., subprocess.CompletedProcess[str]]
CONCERT, SCHEDULE, SEAT = 4, 401, 9


@pytest.fixture
def theirs(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> Iterator[SeatLocks]:
    """Somebody has locked the seat and takes their time."""
    for name, value in function_environment(instance).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENCORE_SEAT_LOCK_TTL_MS", "60000")
    settings.cache_clear()
    with seat_locks(SCHEDULE, [SEAT], "somebody.else") as locks:
        yield locks
    settings.cache_clear()


def test_what_people_wait_for_is_shown(run_script: Script, instance: Instance, theirs: SeatLocks) -> None:
    api = instance.url("gateway")
    joined = httpx.post(
        f"{api}/queue/tokens", json={"concert_id": CONCERT, "user_id": "locks-test"}, trust_env=False
    ).json()
    wanted = {"schedule_id": SCHEDULE, "seats": [SEAT]}
    headers = {"Authorization": f"Bearer {joined['pass']}", "Idempotency-Key": "locks-test-locks-test"}

    answer = httpx.post(f"{api}/reservations", json=wanted, headers=headers, trust_env=False)
    shown = json.loads(run_script("locks", str(SCHEDULE), "--json").stdout)
    tables = run_script("locks", str(SCHEDULE))

    assert answer.status_code == 409, answer.text
    held = next(lock for lock in shown["held"] if lock["seat"] == SEAT)
    assert (held["number"], held["person"], held["attempt"]) == (theirs.number, "somebody", "else")
    contended = next(seat for seat in shown["contended"] if seat["seat"] == SEAT)
    assert contended["refused"] >= 1
    wait = next(wait for wait in shown["waits"] if wait["seat"] == SEAT)
    assert (wait["ended"], wait["holder_number"]) == ("refused", theirs.number)
    assert 0 < wait["waited_ms"] <= contended["waited_ms_max"]
    assert tables.returncode == 0, tables.stderr
    assert "held just now: 1\n" in tables.stdout
