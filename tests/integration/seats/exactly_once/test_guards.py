"""Each guard of a sale has a negative control: the same test passes with the guard and fails without it.

Where two guards stand behind each other, the other one is taken out before, and then each alone is enough. What then
happens, the audit must report.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import pytest
from pg8000.exceptions import DatabaseError

from booking.operations.audit import Auditor
from booking.platform.postgres import DatabaseBusy, primary
from booking.platform.problems import Refusal
from booking.platform.settings import settings
from booking.queue import TurnOver
from booking.seats.holds import expire_holds, release_hold
from booking.seats.problems import KeyReused, SeatTaken
from support.guards import Dropped, Guard, Out
from support.races import everybody_at_once, outcome_of
from support.rows import wait_until_some_wait
from support.shop import Shop, begin_without_gateway, new_key, settle_without_gateway

pytestmark = pytest.mark.race

_CROWD = 8


# --- the guards ----------------------------------------------------------------------------------------------------

SEAT_LOCK = Out("hold_seats", "        for update\n", "")
VERSION = Out("change_seats", " and s.version = w.version", "")
STALE_WRITE = Out("change_seats", "version = s.version + 1", "version = w.version + 1")
"""No guard, but what makes the ledger's key one: a writer that believes what it has read."""
LEDGER_KEY = Dropped("seat_ledger", "PRIMARY KEY")
PERSON_LOCK = Out("hold_seats", "perform pg_advisory_xact_lock(hashtextextended(p_person, 0));", "")
PAYER_LOCKS = (
    Out("begin_payment", "perform pg_advisory_xact_lock(hashtextextended(p_person, 0));", ""),
    Out("begin_payment", "and person = p_person for update;", "and person = p_person;"),
)
ONE_LIVE_PAYMENT = Dropped("payment", "payment_one_live")
CAP_CHECK = Dropped("reservation", "(expires_at <= hard_cap_at)")
CAP_OF_A_PAYMENT = Out(
    "begin_payment", "least(v_now + make_interval(secs => p_deadline_s), v_mine.hard_cap_at)",
    "v_now + make_interval(secs => p_deadline_s)",
)  # fmt: skip

_PAUSE = "perform pg_sleep(0.05);"
HOLD_PAUSE = Out(
    "hold_seats", "    v_expires_at := v_now + make_interval", f"{_PAUSE} v_expires_at := v_now + make_interval"
)
"""Where a hold has read the seats and not yet written them: here racers meet."""
BEGIN_PAUSE = Out("hold_seats", "v_now := clock_timestamp();", "v_now := clock_timestamp(); perform pg_sleep(0.2);")
"""Where a hold has looked at the clock and at nothing else."""
PAY_PAUSE = Out("begin_payment", "    v_deadline_at := least", f"{_PAUSE} v_deadline_at := least")


# --- what goes wrong without them: each answers what it saw, None where all was well --------------------------------


def one_seat_is_held_twice() -> str | None:
    shop = Shop.open(wait=False)
    everybody_at_once(_CROWD, lambda n: outcome_of_any(lambda: shop.hold([1], f"person-{n}")), _CROWD)
    times = shop.ledger(1).count("held")
    return f"held {times} times" if times != 1 else None


def a_loser_is_not_told_why() -> str | None:
    shop = Shop.open(wait=False)
    outcomes = everybody_at_once(_CROWD, lambda n: outcome_of(lambda: shop.hold([1], f"person-{n}")), _CROWD)
    return str(outcomes) if set(outcomes) != {"held", "seat-taken"} else None


def a_stale_reader_changes_a_seat() -> str | None:
    shop = Shop.open(wait=False)
    first, second = shop.hold([1], "first"), shop.hold([2], "second")
    with suppress(DatabaseBusy):
        primary().rows(
            "select change_seats(:id, array[1], array[0]::bigint[], 'held', 'held',"
            " clock_timestamp() + interval '1 minute', cast(:reservation as uuid), clock_timestamp())",
            id=shop.concert_id,
            reservation=second["reservation_id"],
        )
    return "changed" if shop.seat(1)["reservation_id"] != first["reservation_id"] else None


def somebody_gets_over_the_limit() -> str | None:
    shop = Shop.open(seats=2 * _CROWD, wait=False)
    everybody_at_once(_CROWD, lambda n: outcome_of(lambda: shop.hold([2 * n + 1, 2 * n + 2])), _CROWD)
    has = primary().value("select count(*) from seat where schedule_id = :id and state = 'held'", id=shop.concert_id)
    return f"has {has}" if has > 4 else None


def seats_count_twice_while_they_are_given_back() -> str | None:
    """By the ledger's times the hold begins before its person gives the other seats back."""
    shop = Shop.open(wait=False)
    first = shop.hold([1, 2, 3, 4])
    with ThreadPoolExecutor(1) as thread:
        taking = thread.submit(outcome_of, lambda: shop.hold([5, 6]))
        wait_until_some_wait(1)
        release_hold(first["reservation_id"], shop.shopper().person)
    return None if taking.result() == "over-limit" else taking.result()


def twins_get_different_answers() -> str | None:
    shop, key = Shop.open(wait=False), new_key()
    outcomes = everybody_at_once(_CROWD, lambda _: outcome_of_any(lambda: shop.hold([1], key=key)), _CROWD)
    return str(outcomes) if set(outcomes) != {"held"} else None


def a_retry_gets_another_answer() -> str | None:
    shop, key = Shop.open(wait=False), new_key()
    first = shop.hold([1], key=key)
    try:
        again = shop.hold([1], key=key)
    except Refusal as refused:
        return refused.slug
    return None if again == first else "another reservation"


def another_request_is_taken_for_a_retry() -> str | None:
    shop, key = Shop.open(wait=False), new_key()
    shop.hold([1], key=key)
    try:
        return str(shop.hold([2], key=key)["seats"])
    except KeyReused:
        return None


def a_retried_payment_gets_another_answer() -> str | None:
    shop, key = Shop.open(wait=False), new_key()
    held = shop.hold([1])
    first, again = begin_without_gateway(shop, held, key=key), begin_without_gateway(shop, held, key=key)
    return None if (again["outcome"], again["payment"]) == ("replayed", first["payment"]) else str(again)


def a_turn_that_is_over_holds_seats() -> str | None:
    shop = Shop.open(wait=False)
    shopper = shop.shopper()
    primary().rows(
        "select end_admission(:pass_id, cast(:concert_id as bigint), :person, 'left', clock_timestamp())",
        pass_id=shopper.pass_id,
        concert_id=shop.concert_id,
        person=shopper.person,
    )
    try:
        return str(shop.hold([1])["seats"])
    except TurnOver:
        return None


def a_lapsed_hold_keeps_others_out() -> str | None:
    shop = Shop.open(wait=False)
    shop.lapse(shop.hold([1], "slow"))
    try:
        shop.hold([1], "quick")
    except SeatTaken as refused:
        return refused.slug
    return None


def a_hold_is_taken_from_its_owner() -> str | None:
    shop = Shop.open(wait=False)
    shop.hold([1], "first")
    try:
        return str(shop.hold([1], "second")["seats"])
    except SeatTaken:
        return None


def a_live_hold_is_swept() -> str | None:
    shop = Shop.open(wait=False)
    shop.hold([1])
    expire_holds()
    return None if shop.seat(1)["state"] == "held" else "put back"


def the_sweeper_takes_another_persons_seat() -> str | None:
    shop = Shop.open(wait=False)
    shop.lapse(shop.hold([1, 2], "slow"))
    quick = shop.hold([2], "quick")
    expire_holds()
    return None if shop.seat(2)["reservation_id"] == quick["reservation_id"] else str(shop.seat(2))


def a_lapsed_hold_is_paid() -> str | None:
    shop = Shop.open(wait=False)
    held = shop.hold([1])
    shop.lapse_within_cap(held)
    begun = begin_without_gateway(shop, held)
    return None if begun["outcome"] == "hold-expired" else str(begun)


def late_money_takes_another_persons_seat() -> str | None:
    shop = Shop.open(wait=False)
    late = shop.hold([1, 2], "late")
    payment_id = begin_without_gateway(shop, late, "late")["payment"]["payment_id"]
    shop.lapse(late)
    quick = shop.hold([2], "quick")
    settle_without_gateway(payment_id, "captured")
    return None if shop.seat(2)["reservation_id"] == quick["reservation_id"] else str(shop.seat(2))


def late_money_gets_somebody_over_the_limit() -> str | None:
    shop = Shop.open(wait=False)
    late = shop.hold([1, 2])
    payment_id = begin_without_gateway(shop, late)["payment"]["payment_id"]
    shop.lapse(late)
    shop.hold([3, 4, 5, 6])
    settle_without_gateway(payment_id, "captured")
    return None if shop.show(late)["status"] == "refunded" else "six seats"


def an_ended_payment_gets_somebody_over_the_limit() -> str | None:
    shop = Shop.open(wait=False)
    late = shop.hold([1, 2])
    payment_id = begin_without_gateway(shop, late)["payment"]["payment_id"]
    shop.lapse_within_cap(late)
    shop.hold([3, 4, 5, 6])
    settle_without_gateway(payment_id, "declined")
    return None if shop.show(late)["status"] == "expired" else "six seats"


def an_ended_payment_extends_what_went_through_other_hands() -> str | None:
    shop = Shop.open(wait=False)
    late = shop.hold([1], "late")
    payment_id = begin_without_gateway(shop, late, "late")["payment"]["payment_id"]
    shop.lapse_within_cap(late)
    release_hold(shop.hold([1], "quick")["reservation_id"], shop.shopper("quick").person)
    settle_without_gateway(payment_id, "declined")
    return None if shop.show(late, "late")["status"] == "expired" else str(shop.ledger(1))


def a_capture_is_believed_that_may_have_gone_back() -> str | None:
    shop = Shop.open(wait=False)
    held = shop.hold([1])
    payment_id = begin_without_gateway(shop, held)["payment"]["payment_id"]
    primary().rows("update payment set cancelling = true where id = cast(:id as uuid)", id=payment_id)
    settle_without_gateway(payment_id, "captured")
    return None if shop.show(held)["status"] == "paying" else shop.show(held)["status"]


def a_payment_is_settled_twice() -> str | None:
    shop = Shop.open(wait=False)
    payment_id = begin_without_gateway(shop, shop.hold([1]))["payment"]["payment_id"]
    settle_without_gateway(payment_id, "captured")
    settle_without_gateway(payment_id, "captured")
    return None if shop.ledger(1) == ["held", "sold"] else str(shop.ledger(1))


def a_reservation_is_paid_twice_at_once() -> str | None:
    shop = Shop.open(wait=False)
    held = shop.hold([1])

    def pay(_: int) -> str:
        with suppress(DatabaseError):
            return str(begin_without_gateway(shop, held)["outcome"])
        return "refused by a constraint"

    outcomes = everybody_at_once(4, pay, 4)
    return None if outcomes["begun"] == 1 else str(outcomes)


def a_payment_moves_the_hold_past_its_cap() -> str | None:
    shop = Shop.open(wait=False)
    with suppress(DatabaseError):
        begin_without_gateway(shop, shop.hold([1]), deadline_s=settings().hold_cap_s * 2)
    return past_the_cap(shop)


def a_decline_moves_the_hold_past_its_cap() -> str | None:
    shop = Shop.open(wait=False)
    payment_id = begin_without_gateway(shop, shop.hold([1]))["payment"]["payment_id"]
    with suppress(DatabaseError):
        settle_without_gateway(payment_id, "declined", hold_after_decline_s=settings().hold_cap_s * 2)
    return past_the_cap(shop)


def outcome_of_any(hold: Callable[[], object]) -> str:
    """As ``outcome_of``; also for what only a constraint has stopped."""
    try:
        return outcome_of(hold)
    except DatabaseError:
        return "refused by a constraint"


def past_the_cap(shop: Shop) -> str | None:
    found = primary().rows(
        "select s.held_until - r.hard_cap_at from seat s join reservation r on r.id = s.reservation_id"
        " where s.schedule_id = :id and s.held_until > r.hard_cap_at",
        id=shop.concert_id,
    )
    return str(found) if found else None


# --- the controls --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """``fault`` must happen without ``guards`` and must not with them."""

    name: str
    fault: Callable[[], str | None]
    guards: tuple[Guard, ...]
    besides: tuple[Guard, ...] = ()
    """What is taken out both times: other guards against the same fault, and what makes racers meet."""
    reported: frozenset[str] = frozenset()
    """What the audit must find afterwards, by the names of the invariants."""


def control(
    fault: Callable[[], str | None],
    guard: Guard | tuple[Guard, ...],
    *besides: Guard,
    reported: str = "",
    name: str = "",
) -> Control:
    guards = guard if isinstance(guard, tuple) else (guard,)
    return Control(name or fault.__name__, fault, guards, besides, frozenset(reported.split()))


CONTROLS = [
    # The seats' rows are locked and their versions are checked: either is enough.
    control(one_seat_is_held_twice, VERSION, HOLD_PAUSE, SEAT_LOCK, reported="I1 I7", name="version alone"),
    control(one_seat_is_held_twice, SEAT_LOCK, HOLD_PAUSE, VERSION, reported="I1 I7", name="row locks alone"),
    control(
        one_seat_is_held_twice,
        LEDGER_KEY,
        HOLD_PAUSE,
        SEAT_LOCK,
        VERSION,
        STALE_WRITE,
        reported="I1 I7",
        name="ledger key alone",
    ),
    control(a_stale_reader_changes_a_seat, VERSION, reported="I1 I7"),
    control(a_loser_is_not_told_why, SEAT_LOCK, HOLD_PAUSE),
    control(somebody_gets_over_the_limit, PERSON_LOCK, HOLD_PAUSE, reported="I9"),
    control(
        seats_count_twice_while_they_are_given_back,
        Out("cancel_hold", "perform pg_advisory_xact_lock(hashtextextended(p_person, 0));"),
        BEGIN_PAUSE,
        reported="I9",
    ),
    control(twins_get_different_answers, PERSON_LOCK, HOLD_PAUSE),
    control(a_retry_gets_another_answer, Out("hold_seats", "route = 'reserve' and key", "route = 'none' and key")),
    control(another_request_is_taken_for_a_retry, Out("hold_seats", "v_earlier.body_hash <> p_body_hash", "false")),
    control(
        a_retried_payment_gets_another_answer, Out("begin_payment", "route = 'pay' and key", "route = 'none' and key")
    ),
    control(a_turn_that_is_over_holds_seats, Out("hold_seats", "and ended_at is not null", "and false")),
    control(
        a_hold_is_taken_from_its_owner,
        Out("hold_seats", "(state = 'held' and held_until > v_now)", "false"),
        reported="I1 I7",
    ),
    control(
        a_lapsed_hold_keeps_others_out, Out("hold_seats", "state = 'held' and held_until > v_now", "state = 'held'")
    ),
    control(a_live_hold_is_swept, Out("expire_next_hold", "expires_at <= v_now and ", "")),
    control(
        the_sweeper_takes_another_persons_seat,
        Out("release_seats", "where reservation_id = p_reservation.id", "where true"),
        reported="I1 I7",
    ),
    control(a_lapsed_hold_is_paid, Out("begin_payment", " or v_mine.expires_at <= v_now", "")),
    control(
        late_money_takes_another_persons_seat, Out("settle_captured", "and v_seats.free and", "and"), reported="I1 I7"
    ),
    control(
        late_money_gets_somebody_over_the_limit, Out("settle_captured", "not v_retaken\n", "true\n"), reported="I9"
    ),
    control(
        an_ended_payment_gets_somebody_over_the_limit,
        Out("hold_may_go_on", "p_mine.expires_at > p_at\n", "true\n"),
        reported="I9",
    ),
    control(
        an_ended_payment_extends_what_went_through_other_hands,
        Out("hold_may_go_on", "v_seats.own and (", "("),
        reported="I7",
    ),
    control(
        a_capture_is_believed_that_may_have_gone_back,
        Out("settle_payment", "'captured' and v_payment.cancelling then", "'captured' and false then"),
    ),
    control(
        a_payment_is_settled_twice,
        Out("settle_payment", "v_payment.status <> 'pending' or "),
        reported="I6 I7",
    ),
    control(
        a_reservation_is_paid_twice_at_once, ONE_LIVE_PAYMENT, PAY_PAUSE, *PAYER_LOCKS, name="one live payment alone"
    ),
    control(a_reservation_is_paid_twice_at_once, PAYER_LOCKS, PAY_PAUSE, ONE_LIVE_PAYMENT, name="payer's locks alone"),
    control(
        a_payment_moves_the_hold_past_its_cap, CAP_CHECK, CAP_OF_A_PAYMENT, reported="I8", name="cap's check alone"
    ),
    control(a_payment_moves_the_hold_past_its_cap, CAP_OF_A_PAYMENT, CAP_CHECK, reported="I8", name="cap of a payment"),
    control(
        a_decline_moves_the_hold_past_its_cap,
        Out("settle_untaken", "least(p_mine.hard_cap_at,", "greatest(p_mine.expires_at,"),
        CAP_CHECK,
        reported="I8",
    ),
]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_the_guard_is_what_prevents_the_fault(
    control: Control, take_out: Callable[[Guard], None], unguarded_url: str
) -> None:
    for guard in control.besides:
        take_out(guard)
    assert control.fault() is None, "it happens with the guard as well"
    assert reported_by_the_audit(unguarded_url) == set()

    for guard in control.guards:
        take_out(guard)
    assert control.fault() is not None, "the test proves nothing: it passes without the guard"
    assert reported_by_the_audit(unguarded_url) == control.reported


def reported_by_the_audit(url: str) -> set[str]:
    """The names of the broken invariants; but for I3, since no payment firm was asked."""
    auditor = Auditor(url, [])
    try:
        return {name for name, found in auditor.audit().violations.items() if found} - {"I3"}
    finally:
        auditor.close()
