"""Step 6: hold seats for one person, all or none, and give them back."""

import hashlib
from dataclasses import dataclass
from typing import Any

from booking.platform.postgres import DatabaseAway, DatabaseBusy, primary
from booking.platform.problems import BadRequest
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import correlation_id
from booking.queue import Pass, TurnOver
from booking.seats.locks import seat_locks
from booking.seats.problems import (
    KeyReused,
    OverLimit,
    PassOfAnotherConcert,
    SaleClosed,
    ScheduleUnknown,
    SeatsUnknown,
    SeatTaken,
    SectionUnknown,
    TooFewSeatsLeft,
)
from booking.seats.reads import repeat_reads
from booking.seats.reservations import ReservationUnknown, reservation_unknown_if_away
from booking.seats.seat_map_cache import (
    Change,
    call_of,
    call_of_unknown_change,
    seats_changed,
    seats_may_have_changed,
)

SEATS_PER_REQUEST_MAX = 4
_CHOICES_MAX = 5
_HOLDS_PER_SWEEP = 200
_KEYS_PER_SWEEP = 5_000

_HOLD = read_text(__package__, "sql/hold_seats.sql")
_FORGET = read_text(__package__, "sql/forget_old_keys.sql")
_CANCEL = "select cancel_hold(:person, cast(:reservation_id as uuid), :correlation_id)::text"
_EXPIRE_NEXT = "select expire_next_hold(cast(:after as timestamptz), :correlation_id)::text"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who asks, and under which idempotency key with a hash of what they ask for."""

    shopper: Pass
    key: str
    body_hash: str

    @property
    def lock_owner(self) -> str:
        """``<person>.<attempt>``: names this attempt to the seat locks, the same for its retries, nobody else's."""
        return f"{self.shopper.person}.{hashlib.blake2b(self.key.encode(), digest_size=6).hexdigest()}"


def hold_seats(attempt: Attempt, schedule_id: int, numbers: list[int]) -> dict[str, Any]:
    """Hold the seats and return the reservation as step 6 shows it; for the same key and body, the earlier answer.

    Raises BadRequest (how many, doubles), ScheduleUnknown, SeatsUnknown, PassOfAnotherConcert, SaleClosed, TurnOver,
    SeatTaken, OverLimit, KeyReused; then nothing has changed.
    """
    _check_count(len(numbers))
    if len(set(numbers)) != len(numbers):
        raise BadRequest("a seat number is there twice")
    wanted = sorted(numbers)
    with seat_locks(schedule_id, wanted, attempt.lock_owner) as locks:
        try:
            verdict = _ask(attempt, schedule_id, numbers=wanted)
        except DatabaseAway:
            locks.afterwards.append(call_of_unknown_change(schedule_id))
            raise
        locks.held = _is_held(verdict)
        if locks.held:
            locks.afterwards.append(call_of(verdict["changed"]))
    return _answer(verdict, schedule_id)


def hold_best_seats(attempt: Attempt, schedule_id: int, count: int, section: str | None = None) -> dict[str, Any]:
    """Hold the best ``count`` seats that are free, of one section or of all, and return the reservation as
    ``hold_seats`` does, with ``side_by_side``: whether they are; for the same key and body, the earlier answer.

    What is best is said in ``choose_best_seats.sql``. Seats are locked in Postgres alone: nobody knows their numbers
    before, and who asks for the best never competes for a seat that somebody else is taking. Raises BadRequest,
    ScheduleUnknown, SectionUnknown, PassOfAnotherConcert, SaleClosed, TurnOver, TooFewSeatsLeft, OverLimit, KeyReused,
    DatabaseBusy; then nothing has changed.
    """
    _check_count(count)
    try:
        verdict = _choose(attempt, schedule_id, count, section)
    except DatabaseAway:
        seats_may_have_changed(schedule_id)
        raise
    seats_changed(verdict.get("changed"))
    return _answer(verdict, schedule_id)


def release_hold(reservation_id: str, person: str) -> str:
    """Give a hold back. Returns its status: ``cancelled``, or the one it had already ended with.

    ``paying`` and ``confirmed`` come back unchanged: then there is a payment to deal with first.
    Raises ReservationUnknown, also for a stranger's.
    """
    with reservation_unknown_if_away(reservation_id):
        verdict = primary().document(
            _CANCEL, person=person, reservation_id=reservation_id, correlation_id=correlation_id()
        )
    if verdict["outcome"] == "not-found":
        raise ReservationUnknown(f"no reservation {reservation_id}")
    seats_changed(verdict.get("changed"))
    return str(verdict.get("status", verdict["outcome"]))


def expire_holds() -> int:
    """Close lapsed holds and put their seats back; returns how many. Nothing waits for it: expiry is lazy in SQL."""
    closed, after = 0, "-infinity"
    changed: list[Change | None] = []
    try:
        for _ in range(_HOLDS_PER_SWEEP):
            step = primary().document(_EXPIRE_NEXT, after=after, correlation_id=correlation_id())
            if step is None:
                break
            after = step["expires_at"]
            if step["closed"]:
                closed += 1
                changed.append(step["changed"])
    finally:
        # Once for all of them: no map shows a lapsed hold as held, only its version moves on.
        seats_changed(*changed)
    return closed


def forget_old_keys() -> int:
    """Forget idempotency keys whose lifetime is over; returns how many."""
    return len(primary().rows(_FORGET, limit=_KEYS_PER_SWEEP))


def sweep() -> int:
    """The sweeper's work: ``expire_holds``, ``forget_old_keys``, ``repeat_reads``; returns how many of all."""
    return expire_holds() + forget_old_keys() + repeat_reads()


def _check_count(count: int) -> None:
    if not 1 <= count <= SEATS_PER_REQUEST_MAX:
        raise BadRequest(f"ask for 1 to {SEATS_PER_REQUEST_MAX} seats at a time", seats_max=SEATS_PER_REQUEST_MAX)


def _choose(attempt: Attempt, schedule_id: int, count: int, section: str | None) -> dict[str, Any]:
    """One trip, unless the last seats are just being taken by others: then again, waiting for what becomes of them."""
    for choice in range(_CHOICES_MAX):
        verdict = _ask(attempt, schedule_id, best=count, section=section, patient=choice > 0)
        if verdict["outcome"] != "contended":
            return verdict
    raise DatabaseBusy("others are buying the last seats right now", retry_after_s=1)


def _ask(
    attempt: Attempt,
    schedule_id: int,
    *,
    numbers: list[int] | None = None,
    best: int | None = None,
    section: str | None = None,
    patient: bool = False,
) -> dict[str, Any]:
    # Safe to repeat: a second run under the same key finds what the first has done.
    verdict: dict[str, Any] = primary().document(
        _HOLD,
        person=attempt.shopper.person,
        key=attempt.key,
        body_hash=attempt.body_hash,
        concert_id=attempt.shopper.concert_id,
        pass_id=attempt.shopper.pass_id,
        schedule_id=schedule_id,
        numbers=numbers,
        hold_ttl_s=settings().hold_ttl_s,
        hold_cap_s=settings().hold_cap_s,
        correlation_id=correlation_id(),
        best=best,
        section=section,
        patient=patient,
    )
    return verdict


def _is_held(verdict: dict[str, Any]) -> bool:
    return verdict["outcome"] in ("held", "replayed")


def _answer(verdict: dict[str, Any], schedule_id: int) -> dict[str, Any]:
    if not _is_held(verdict):
        raise _refusal(verdict, schedule_id)
    reservation: dict[str, Any] = verdict["answer"]
    return reservation


def _refusal(verdict: dict[str, Any], schedule_id: int) -> Exception:  # noqa: PLR0911 - one line a refusal
    match verdict["outcome"]:
        case "seats-taken":
            return SeatTaken(f"taken: {verdict['seats']}", seats=verdict["seats"])
        case "seats-unknown":
            return SeatsUnknown(f"schedule {schedule_id} has no seats {verdict['seats']}", seats=verdict["seats"])
        case "section-unknown":
            return SectionUnknown(f"schedule {schedule_id} has no such section")
        case "too-few-left":
            return TooFewSeatsLeft(f"seats left: {verdict['left']}", seats_left=verdict["left"])
        case "over-limit":
            return OverLimit(
                f"one person may have {verdict['limit']} seats of this concert; you have {verdict['has']}",
                limit=verdict["limit"],
                has=verdict["has"],
            )
        case "schedule-unknown":
            return ScheduleUnknown(f"no schedule {schedule_id}")
        case "wrong-concert":
            return PassOfAnotherConcert(f"schedule {schedule_id} is not of the pass's concert")
        case "sale-closed":
            return SaleClosed("the sale of this concert has ended")
        case "turn-over":
            return TurnOver("this pass belongs to a turn that is over; join the line again")
        case "key-reused":
            return KeyReused("use a new key for a new request")
        case outcome:
            raise AssertionError(f"hold_seats answered {outcome!r}")
