"""A transaction takes every seat that people want to buy, and forgets to end.

Who reserves, gives back or pays waits for it as long as ``lock_timeout_ms``, gets a 503 and asks again with the same
key. The job finds it when it is older than ``long_lock_s_max``, ends it and records it; nobody touches anything.
"""

from dataclasses import fields
from typing import Any

import pg8000.native
from pg8000.exceptions import DatabaseError, InterfaceError

from booking.operations.long_locks import long_lock_record
from booking.platform.settings import Settings
from drills.harness.crowd import Plan
from drills.harness.drill import Bound, Drill, back_within, no_failures, nobody_loses_the_place, refused_at_all
from drills.harness.evidence import Evidence
from drills.harness.record import LINE_STEPS, SHOP_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate
from encore_stack.parts.postgres import connect

CAPACITY, RATE_PER_S = 30, 6
BEFORE_S, AFTER_S = 12, 20
FOUND_S_MAX = 30
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(Settings)}  # the functions have no others
BOUND_S, LOCK_TIMEOUT_S = _DEFAULTS["long_lock_s_max"], _DEFAULTS["lock_timeout_ms"] / 1000
TICK_S, ASKED_AGAIN_S = 1.0, 1.0
MARGIN_S = 1.5
WAITERS = ("step6_reserve", "step7_pay", "reservation")
"""The steps that need the seats' rows: a reservation is looked at and given back under one name."""
READERS = tuple(step for step in (*LINE_STEPS, *SHOP_STEPS) if step not in WAITERS)
_LOCK = "select count(*) from (select from seat where schedule_id = any (cast(:ids as bigint[])) for update) seats"


async def incident(scene: Scene) -> None:
    """Twelve seconds of shopping, the forgotten transaction, its end by the job, twenty seconds more."""
    await scene.wait(BEFORE_S)
    culprit = await scene.do(lambda: _connect(scene))
    pid = culprit.run("select pg_backend_pid()")[0][0]
    scene.breaks(f"session {pid} locks every seat of the concert and does nothing more")
    await scene.do(lambda: _sit(culprit, scene.crowd.concert.schedule_ids))
    scene.figure("found_s", await scene.until(lambda: bool(_records(pid)), FOUND_S_MAX, "the job ends the session"))
    [record] = _records(pid)
    scene.figure("waited", record["waiting"])
    scene.figure("survived", await scene.do(lambda: _is_there(culprit)))
    scene.healed(f"ended by {record['ended_by']} after {record['held_s']} s, {record['waiting']} waited for it")
    await scene.wait(AFTER_S)


def _connect(scene: Scene) -> pg8000.native.Connection:
    return connect(scene.stage.instance, scene.stage.instance.postgres_primary)


def _sit(culprit: pg8000.native.Connection, schedule_ids: tuple[int, ...]) -> None:
    culprit.run("begin")
    culprit.run(_LOCK, ids=list(schedule_ids))


def _is_there(session: pg8000.native.Connection) -> bool:
    """Whether the session's transaction can still be ended by itself."""
    try:
        session.run("commit")
    except (InterfaceError, DatabaseError, OSError):
        return False
    session.close()
    return True


def _records(pid: int) -> list[dict[str, Any]]:
    return [one for one in long_lock_record(5) if one["pid"] == pid and one["ended_at"]]


def _first_refusal_s(seen: Evidence) -> float | None:
    outage = seen.outage(WAITERS)
    return None if outage is None else outage.first_s


def _longest_wait_s(seen: Evidence) -> float:
    return max((answer.took_s for answer in seen.failures(WAITERS)), default=0.0)


DRILL = Drill(
    name="long-lock",
    breaks="a transaction locks the seats that people buy, and is forgotten",
    plan=Plan(at_once=60, within_s=4, then_per_s=RATE_PER_S, people_max=400, stay_s_max=3),
    gate=Gate(CAPACITY, RATE_PER_S),
    incident=incident,
    duration_s=round(BEFORE_S + BOUND_S + AFTER_S),
    felt=refused_at_all(*WAITERS),
    bounds=(
        Bound("first refusal after the break", "<=", LOCK_TIMEOUT_S + MARGIN_S, _first_refusal_s, "s"),
        Bound("longest wait for a refusal", "<=", LOCK_TIMEOUT_S + MARGIN_S, _longest_wait_s, "s"),
        Bound(
            "session ended and recorded after the break", "<=", BOUND_S + TICK_S + MARGIN_S,
            lambda seen: seen.figures.get("found_s"), "s",
        ),
        Bound("sessions that waited for it", ">=", 1, lambda seen: seen.figures.get("waited")),
        Bound("sessions that outlived their end", "<=", 0, lambda seen: seen.figures.get("survived", 0)),
        *(back_within(BOUND_S + TICK_S + ASKED_AGAIN_S + 2 * MARGIN_S, step) for step in WAITERS),
        no_failures(*READERS, name="the line, the catalogue, the maps"),
        *nobody_loses_the_place(),
    ),
)  # fmt: skip
