"""A sale against a model of it in plain Python: whatever people do in whatever order, both say the same."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from booking import payment, seats
from booking.operations.audit import Verdict
from booking.payment.gateways import Charge, Outcome, gateway
from booking.platform.postgres import primary, replica, writer_url
from booking.platform.problems import Refusal
from booking.platform.settings import settings
from booking.queue import Pass
from booking.seats.holds import Attempt, expire_holds
from support.gateways import SimulatedGateway
from support.guards import Guard, Out
from support.shop import PRICE, Shop, new_key
from support.sound import SOUND

pytestmark = pytest.mark.race

NAMES = ("ann", "bob", "cid")
SEATS, LIMIT = 5, 2
TTL_S, CAP_S, DEADLINE_S, AFTER_DECLINE_S = 300, 900, 120, 60
LAPSE_S = 367
STEPS_S = (73, 211, LAPSE_S, 3_607)
"""No sum of these comes near a moment at which something lapses: the seconds that a test takes make no difference."""
CLOCK_TOLERANCE_S = 10
WISHES = st.lists(st.integers(1, SEATS), min_size=1, max_size=2, unique=True)
METHODS = st.sampled_from(("card", "card", "card_declined"))
LIVE = ("held", "paying")


@dataclass
class Payment:
    """One payment: what the database says of it, and what the payment firm has done."""

    method: str
    key: str
    deadline_s: int
    status: str = "pending"
    firm: str = "nothing"
    """nothing, captured, declined, or cancelled: then it takes nothing any more."""
    cancelling: bool = False
    give_up: bool = False

    def asked_to_charge(self) -> str:
        if self.firm == "nothing":
            self.firm = "declined" if self.method == "card_declined" else "captured"
        return self.firm


@dataclass
class Reservation:
    """One hold and what became of it."""

    name: str
    attempt: Attempt
    wish: list[int] | None
    """The seats that were asked for, None: the best."""
    answer: dict[str, Any]
    numbers: list[int]
    expires_s: int
    cap_s: int
    status: str = "held"
    payments: list[Payment] = field(default_factory=list)

    @property
    def id(self) -> str:
        return str(self.answer["reservation_id"])

    def lives(self, now_s: int) -> bool:
        return self.status == "confirmed" or (self.status in LIVE and self.expires_s > now_s)


@dataclass
class Model:
    """What the design says of a sale, without a database or a clock."""

    now_s: int = 0
    seats: dict[int, tuple[str, Reservation | None, int]] = field(
        default_factory=lambda: dict.fromkeys(range(1, SEATS + 1), ("available", None, 0))
    )
    """State, whose, held until."""
    reservations: list[Reservation] = field(default_factory=list)
    over: set[str] = field(default_factory=set)
    """Passes whose turn is over."""

    def is_free(self, number: int, to: Reservation | None = None) -> bool:
        state, owner, until_s = self.seats[number]
        return state == "available" or (state == "held" and (until_s <= self.now_s or (owner is to and to is not None)))

    def has(self, name: str) -> int:
        return sum(len(r.numbers) for r in self.reservations if r.name == name and r.lives(self.now_s))

    def refusals(self, name: str, pass_id: str, count: int, numbers: list[int] | None) -> set[str]:
        """Why they may not hold so many seats, or these; where there are two reasons, either may be given."""
        if pass_id in self.over:
            return {"turn-over"}
        reasons = {"over-limit"} if self.has(name) + count > LIMIT else set()
        if numbers is None:
            return reasons | ({"too-few-seats-left"} if sum(map(self.is_free, self.seats)) < count else set())
        return reasons | ({"seat-taken"} if not all(map(self.is_free, numbers)) else set())

    def hold(self, attempt: Attempt, name: str, wish: list[int] | None, answer: dict[str, Any]) -> None:
        held = Reservation(name, attempt, wish, answer, answer["seats"], self.now_s + TTL_S, self.now_s + CAP_S)
        self.reservations.append(held)
        self.set_seats(held, "held", held.expires_s)

    def set_seats(self, owner: Reservation, state: str, until_s: int = 0) -> None:
        for number in owner.numbers:
            self.seats[number] = (state, owner, until_s)

    def release(self, owner: Reservation) -> None:
        for number in owner.numbers:
            if self.seats[number][1] is owner:
                self.seats[number] = ("available", None, 0)

    def lapsed(self) -> list[Reservation]:
        return [mine for mine in self.reservations if mine.status == "held" and mine.expires_s <= self.now_s]

    def sweep(self) -> None:
        for held in self.lapsed():
            held.status = "expired"
            self.release(held)

    def begin_payment(self, held: Reservation, method: str, key: str) -> Payment:
        paying = Payment(method, key, min(self.now_s + DEADLINE_S, held.cap_s))
        held.payments.append(paying)
        held.status = "paying"
        self.extend(held, paying.deadline_s)
        return paying

    def extend(self, held: Reservation, until_s: int) -> None:
        if until_s > held.expires_s:
            held.expires_s = until_s
            self.set_seats(held, "held", until_s)

    def within_limit(self, late: Reservation) -> bool:
        """For who has lost the seats to time and would have them again."""
        return late.expires_s > self.now_s or self.has(late.name) + len(late.numbers) <= LIMIT

    def settle(self, mine: Reservation, outcome: str) -> None:
        paid = mine.payments[-1]
        if outcome == "captured":
            if all(self.is_free(number, mine) for number in mine.numbers) and self.within_limit(mine):
                paid.status, mine.status = "captured", "confirmed"
                self.set_seats(mine, "sold")
                self.over.add(mine.attempt.shopper.pass_id)
            else:
                paid.status, mine.status = "refunding", "refunded"
                self.release(mine)
            return
        paid.status = "declined"
        until_s = min(mine.cap_s, max(mine.expires_s, self.now_s + AFTER_DECLINE_S))
        has_all = all(self.seats[number][1] is mine for number in mine.numbers)
        if has_all and not paid.give_up and until_s > self.now_s and self.within_limit(mine):
            mine.status = "held"
            self.extend(mine, until_s)
        else:
            mine.status = "cancelled" if paid.give_up else "expired"
            self.release(mine)

    def ask_firm(self, mine: Reservation) -> None:
        """What the settling job does about a payment whose next check is due, while the firm answers."""
        asked = mine.payments[-1]
        if asked.status == "refunding":
            asked.firm, asked.status = "cancelled", "refunded"
        elif asked.cancelling or (asked.firm == "nothing" and asked.deadline_s <= self.now_s):
            asked.firm = "cancelled"
            self.settle(mine, "cancelled")
        else:
            self.settle(mine, asked.asked_to_charge())


class TheSale(RuleBasedStateMachine):
    """Does everything twice, to the shop and to the model."""

    danal: SimulatedGateway
    audit: Callable[[], Verdict] | None

    @initialize()
    def open(self) -> None:
        self.shop = Shop.open(seats=SEATS, limit=LIMIT, wait=False)
        self.model = Model()
        self.turns = dict.fromkeys(NAMES, 1)

    def teardown(self) -> None:
        if not hasattr(self, "shop"):
            return
        for mine in self.model.reservations:
            for _ in range(2):  # a capture that nobody can have the seats for, and its refund
                if mine.payments and mine.payments[-1].status in ("pending", "refunding"):
                    self.settle_one(mine)
        self.both_say_the_same()
        assert self.audit is None or self.audit().violations == SOUND

    # ---- holds ----

    def attempt(self, name: str, key: str, body: str) -> Attempt:
        pass_id = f"{self.shop.concert_id}-{name}-{self.turns[name]}"
        shopper = self.shop.shopper(name)
        return Attempt(
            Pass(shopper.concert_id, shopper.person, 1, 1, 1, pass_id, shopper.expires_at), key or new_key(), body
        )

    def try_to_hold(self, name: str, count: int, numbers: list[int] | None) -> None:
        attempt = self.attempt(name, new_key(), f"{count} {numbers}")
        refusals = self.model.refusals(name, attempt.shopper.pass_id, count, numbers)
        with told(refusals):
            answer = self.ask_to_hold(attempt, count, numbers)
            assert len(answer["seats"]) == count
            assert all(map(self.model.is_free, answer["seats"])), f"{name} was given seats of others: {answer}"
            assert numbers is None or answer["seats"] == sorted(numbers)
            self.model.hold(attempt, name, numbers, answer)

    def ask_to_hold(self, attempt: Attempt, count: int, numbers: list[int] | None) -> dict[str, Any]:
        if numbers is None:
            best: dict[str, Any] = seats.hold_best_seats(attempt, self.shop.concert_id, count)
            return best
        return seats.hold_seats(attempt, self.shop.concert_id, numbers)

    @rule(name=st.sampled_from(NAMES), numbers=WISHES)
    def hold(self, name: str, numbers: list[int]) -> None:
        self.try_to_hold(name, len(numbers), numbers)

    @precondition(lambda self: self.model.reservations)
    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def hold_what_somebody_had(self, data: st.DataObject, name: str) -> None:
        numbers = self.one_of(data, self.model.reservations).numbers
        self.try_to_hold(name, len(numbers), numbers)

    @precondition(lambda self: hasattr(seats, "hold_best_seats"))
    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 2))
    def hold_best(self, name: str, count: int) -> None:
        self.try_to_hold(name, count, None)

    @precondition(lambda self: self.model.reservations)
    @rule(data=st.data())
    def hold_again_with_the_same_key(self, data: st.DataObject) -> None:
        held = self.one_of(data, self.model.reservations)
        attempt = held.attempt
        assert self.ask_to_hold(attempt, len(held.numbers), held.wish) == held.answer

    @precondition(lambda self: any(self.pass_id(name) in self.model.over for name in NAMES))
    @rule(data=st.data())
    def come_back_with_a_new_turn(self, data: st.DataObject) -> None:
        self.turns[self.one_of(data, [name for name in NAMES if self.pass_id(name) in self.model.over])] += 1

    def pass_id(self, name: str) -> str:
        return f"{self.shop.concert_id}-{name}-{self.turns[name]}"

    # ---- payments ----

    @precondition(lambda self: self.payable())
    @rule(data=st.data(), method=METHODS)
    def pay(self, data: st.DataObject, method: str) -> None:
        self.try_to_pay(self.one_of(data, self.payable()), method)

    @precondition(lambda self: self.payable())
    @rule(data=st.data(), method=METHODS, arrives=st.booleans())
    def pay_and_hear_nothing(self, data: st.DataObject, method: str, arrives: bool) -> None:
        mine = self.one_of(data, self.payable())
        self.try_to_pay(mine, method, in_doubt=True)
        if arrives:
            self.the_request_arrives(mine)

    @rule(name=st.sampled_from(NAMES), numbers=WISHES, method=METHODS, arrives=st.booleans())
    def hold_pay_and_hear_nothing_until_it_lapses(
        self, name: str, numbers: list[int], method: str, arrives: bool
    ) -> None:
        """What most of the other rules are about, and what chance alone seldom brings about."""
        known = len(self.model.reservations)
        self.hold(name, numbers)
        for mine in self.model.reservations[known:]:
            self.try_to_pay(mine, method, in_doubt=True)
            if arrives:
                self.the_request_arrives(mine)
            self.pass_time(LAPSE_S)

    @precondition(lambda self: self.late())
    @rule(data=st.data())
    def hold_others_while_the_money_is_late(self, data: st.DataObject) -> None:
        mine = self.one_of(data, self.late())
        others = [number for number in self.model.seats if self.model.is_free(number) and number not in mine.numbers]
        if others:
            self.try_to_hold(mine.name, len(others[:LIMIT]), others[:LIMIT])

    def late(self) -> list[Reservation]:
        return [mine for mine in self.open_payments() if not mine.lives(self.model.now_s)]

    def try_to_pay(self, mine: Reservation, method: str, *, in_doubt: bool = False) -> None:
        key = new_key()
        self.model.begin_payment(mine, method, key)
        if not in_doubt:
            self.model.settle(mine, mine.payments[-1].asked_to_charge())
        declined = mine.payments[-1].status == "declined"
        with self.firm(is_away=in_doubt), told({"payment-declined"} if declined else set()):
            paid = payment.pay(self.attempt(mine.name, key, method), mine.id, method)
            assert (paid.pending, paid.payment["amount"]) == (in_doubt, PRICE * len(mine.numbers))

    @precondition(lambda self: len(self.payable()) < len(self.model.reservations))
    @rule(data=st.data())
    def pay_for_what_cannot_be_paid(self, data: st.DataObject) -> None:
        mine = self.one_of(data, [mine for mine in self.model.reservations if mine not in self.payable()])
        slug = {"confirmed": "already-paid", "paying": "payment-in-progress"}.get(mine.status, "hold-expired")
        with told({slug}):
            payment.pay(self.attempt(mine.name, new_key(), "card"), mine.id, "card")

    def payable(self) -> list[Reservation]:
        return [mine for mine in self.model.reservations if mine.status == "held" and mine.lives(self.model.now_s)]

    @contextmanager
    def firm(self, *, is_away: bool) -> Iterator[None]:
        """The payment firm may refuse connections for the length of the block."""
        if is_away:
            self.danal.faults(mode="refuse")
        try:
            yield
        finally:
            if is_away:
                self.danal.well()

    @precondition(lambda self: any(mine.payments for mine in self.model.reservations))
    @rule(data=st.data())
    def pay_again_with_the_same_key(self, data: st.DataObject) -> None:
        mine = self.one_of(data, [mine for mine in self.model.reservations if mine.payments])
        earlier = data.draw(st.sampled_from(mine.payments))
        with told({"payment-declined"} if earlier.status == "declined" else set()):
            shown = payment.pay(self.attempt(mine.name, earlier.key, earlier.method), mine.id, earlier.method)
            assert shown.pending == (earlier.status in ("pending", "refunding"))

    @precondition(lambda self: self.open_payments())
    @rule(data=st.data())
    def the_request_arrives_late(self, data: st.DataObject) -> None:
        self.the_request_arrives(self.one_of(data, self.open_payments()))

    def the_request_arrives(self, mine: Reservation) -> None:
        [[payment_id, amount]] = primary().rows(
            "select id::text, amount from payment where reservation_id = cast(:id as uuid)"
            " and status in ('pending', 'refunding')",
            id=mine.id,
        )
        late = mine.payments[-1]
        charge = Charge(payment_id, mine.id, amount, "KRW", late.method)
        assert gateway("danal").charge(charge) is Outcome(late.asked_to_charge())

    @precondition(lambda self: self.open_payments())
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        self.settle_one(self.one_of(data, self.open_payments()))

    def settle_one(self, mine: Reservation) -> None:
        self.model.ask_firm(mine)
        primary().rows(
            "update payment set next_check_at = clock_timestamp()"
            " + case reservation_id when cast(:id as uuid) then interval '0' else interval '1 hour' end"
            " where status in ('pending', 'refunding')",
            id=mine.id,
        )
        assert payment.settle_due() == 1

    def open_payments(self) -> list[Reservation]:
        return [
            mine
            for mine in self.model.reservations
            if mine.payments and mine.payments[-1].status in ("pending", "refunding")
        ]

    # ---- giving back ----

    @precondition(lambda self: self.model.reservations)
    @rule(data=st.data(), firm_is_away=st.booleans())
    def give_back(self, data: st.DataObject, firm_is_away: bool) -> None:
        mine = self.one_of(data, self.model.reservations)
        refused: set[str] = set()
        if mine.status == "held":
            mine.status = "cancelled"
            self.model.release(mine)
        elif mine.status == "paying":
            asked = mine.payments[-1]
            asked.cancelling = asked.give_up = True
            if firm_is_away:
                refused = {"payment-in-progress"}
            else:
                self.model.ask_firm(mine)
        elif mine.status == "confirmed":
            self.model.release(mine)
            mine.status, mine.payments[-1].status = "refunded", "refunding"
            if not firm_is_away:
                self.model.ask_firm(mine)
        with self.firm(is_away=firm_is_away), told(refused):
            given_back = payment.cancel_reservation(mine.id, self.shop.shopper(mine.name).person)
            assert given_back["status"] == mine.status

    # ---- time ----

    @rule(seconds=st.sampled_from(STEPS_S))
    def time_passes(self, seconds: int) -> None:
        self.pass_time(seconds)

    @precondition(lambda self: any(mine.lives(self.model.now_s) for mine in self.model.reservations))
    @rule()
    def a_hold_lapses(self) -> None:
        self.pass_time(LAPSE_S)

    def pass_time(self, seconds: int) -> None:
        self.shop.pass_time(seconds)
        self.model.now_s += seconds

    @precondition(lambda self: self.model.lapsed())
    @rule()
    def sweep(self) -> None:
        expire_holds()
        self.model.sweep()

    # ---- what both say ----

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "shop"):
            return
        now_s, model = self.model.now_s, self.model
        said = json.loads(primary().value(_WHAT_THE_DATABASE_SAYS, id=self.shop.concert_id))
        for number, state, owner, left_s in said["seats"]:
            expected, whose, until_s = model.seats[number]
            assert (state, owner) == (expected, whose and whose.id), f"seat {number}"
            assert state != "held" or abs(left_s - (until_s - now_s)) < CLOCK_TOLERANCE_S, f"seat {number}"
        found = {row[0]: row[1:] for row in said["reservations"]}
        assert len(found) == len(model.reservations)
        for mine in model.reservations:
            status, left_s, statuses = found[mine.id]
            assert (status, statuses) == (mine.status, [payment.status for payment in mine.payments] or None)
            assert status not in LIVE or abs(left_s - (mine.expires_s - now_s)) < CLOCK_TOLERANCE_S
        for name in NAMES:
            assert model.has(name) <= LIMIT
        shown = json.loads(seats.show_seat_map(self.shop.concert_id, self.shop.concert_id).body)["seats"]
        free = {seat["number"] for seat in shown if seat["state"] == "available"}
        assert free == {number for number in model.seats if model.is_free(number)}

    @staticmethod
    def one_of[Thing](data: st.DataObject, things: list[Thing]) -> Thing:
        """Drawn by its place, which says more in a failure's story than what it holds."""
        return things[data.draw(st.integers(0, len(things) - 1))]


_WHAT_THE_DATABASE_SAYS = """
select json_build_object(
    'seats', (
        select json_agg(json_build_array(number, state, reservation_id,
                                         extract(epoch from held_until - clock_timestamp())) order by number)
        from seat where schedule_id = :id),
    'reservations', coalesce((
        select json_agg(json_build_array(r.id, r.status, extract(epoch from r.expires_at - clock_timestamp()), (
            select json_agg(p.status order by p.deadline_at - r.hard_cap_at, p.id)
            from payment p where p.reservation_id = r.id)))
        from reservation r where r.schedule_id = :id), '[]'))::text
"""


@contextmanager
def told(refusals: set[str]) -> Iterator[None]:
    """The block is refused for one of these reasons; where there are none, it is not."""
    try:
        yield
    except Refusal as refused:
        assert refused.slug in refusals, f"refused: {refused.slug}; expected: {refusals or 'nothing'}"
    else:
        assert not refusals, f"not refused: {refusals}"


@pytest.fixture(autouse=True)
def no_replica(encore_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time passes here by rows whose versions stay: a replica that has not replayed that would pass for up to date."""
    monkeypatch.setenv("ENCORE_REPLICA_URL", writer_url(os.environ["ENCORE_DATABASE_URL"]))
    settings.cache_clear()
    assert not replica().value("select pg_is_in_recovery()")


@pytest.fixture(autouse=True)
def one_firm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model knows one payment firm, which is never given up: turning to the other has tests of its own."""
    monkeypatch.setattr("booking.payment.payments._TURN_S_MIN", float("inf"))
    monkeypatch.setenv("ENCORE_PAYMENT_TURN_S_MIN", "1000000")
    monkeypatch.setenv("ENCORE_CIRCUIT_FAILURES_MAX", "1000000")
    monkeypatch.setenv("ENCORE_GATEWAY_TRIES_MAX", "1")
    settings.cache_clear()


def run(danal: SimulatedGateway, audit: Callable[[], Verdict] | None, examples: int) -> None:
    machine = type("TheSale", (TheSale,), {"danal": danal, "audit": staticmethod(audit) if audit else None})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),  # a failure's whole story is short enough; shrinking it takes minutes
            report_multiple_bugs=False,
        ),
    )


def test_the_sale_does_what_the_model_does(danal: SimulatedGateway, audit: Callable[[], Verdict]) -> None:
    run(danal, audit, examples=30)


@pytest.mark.parametrize(
    "guard",
    [
        Out("hold_seats", "(state = 'held' and held_until > v_now)", "false"),
        Out("hold_seats", "state = 'held' and held_until > v_now", "state = 'held'"),
        Out("hold_seats", "> v_schedule.seats_per_person_max", "> 1000"),
        Out("begin_payment", " or v_mine.expires_at <= v_now", ""),
        Out("release_seats", "where reservation_id = p_reservation.id", "where true"),
        Out("settle_captured", "and v_seats.free and", "and"),
    ],
    ids=lambda guard: guard.function,
)
def test_without_a_guard_they_differ(
    guard: Guard, take_out: Callable[[Guard], None], unguarded_danal: SimulatedGateway
) -> None:
    take_out(guard)

    with pytest.raises(AssertionError):
        run(unguarded_danal, None, examples=60)
