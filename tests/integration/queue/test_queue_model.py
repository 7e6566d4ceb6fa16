"""The line against a model of it in plain Python: whatever people do in whatever order, both say the same."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from booking.operations.audit import Admission, overtakings
from booking.platform.postgres import primary
from booking.queue import end_turn, read_pass, read_token
from booking.queue.admissions import copy_admissions
from booking.queue.line import Turn, TurnOver
from support.line import Line
from support.redis import runs_on

pytestmark = runs_on("single")  # rules and time: the servers that run the scripts make no difference

SECOND = 1_000_000
CLAIM_US, PASS_US, GRACE_US, HOLD_US = 60 * SECOND, 600 * SECOND, 10 * SECOND, 15 * SECOND
NEWEST = 2**63
RATE_PER_S = 100_000  # never what keeps people waiting here
NAMES = ("ann", "bob", "cid", "dee", "eve", "flo")


@dataclass
class Stay:
    """Somebody inside."""

    place: int
    lapses_us: int
    claimed: bool = False


@dataclass
class Model:
    """What the design says of a line, without Redis, Lua or a clock."""

    capacity: int
    now_us: int = 0
    paused: bool = False
    running: bool = False
    started: bool = False
    held_until_us: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    """Person → place."""
    away: dict[str, int] = field(default_factory=dict)
    due_us: dict[str, int] = field(default_factory=dict)
    inside: dict[str, Stay] = field(default_factory=dict)
    over: dict[str, int] = field(default_factory=dict)
    """Person → the latest place of theirs whose turn is over."""
    recorded_over: dict[str, int] = field(default_factory=dict)
    """The part of it that outlives a loss: only admissions are recorded."""
    held: dict[str, int] = field(default_factory=dict)
    """Person → the latest place that they have been given."""

    def begin(self) -> None:
        """What every call does first."""
        if not self.running:
            self._restore()
        for person, stay in list(self.inside.items()):
            if stay.lapses_us <= self.now_us:
                self.end(person)

    def _restore(self) -> None:
        self.running = True
        if not self.started:
            self.started = True
            return
        self.waiting, self.away, self.due_us = {}, {}, {}
        known = {person: stay for person, stay in self.inside.items() if not person.startswith("phantom")}
        self.over = dict(self.recorded_over)
        self.held_until_us = self.now_us + HOLD_US
        for stay in known.values():
            if not stay.claimed:
                stay.lapses_us += PASS_US
        phantoms = range(self.capacity - len(known))  # as many as there is room for: the rate allows more
        self.inside = known | {f"phantom {number}": Stay(0, self.now_us + PASS_US) for number in phantoms}

    def end(self, person: str) -> None:
        stay = self.inside.pop(person)
        if not person.startswith("phantom"):
            self.over[person] = self.held[person]
            self.recorded_over[person] = max(stay.place, self.recorded_over.get(person, 0))

    def let_in(self, caller: str | None = None) -> None:
        if self.paused or self.now_us < self.held_until_us:
            return
        for person in self.line():
            if len(self.inside) >= self.capacity:
                break
            place = self.waiting.pop(person)
            due_us = self.due_us.get(person, 0)
            if person == caller or -GRACE_US <= due_us - self.now_us <= GRACE_US:
                self.inside[person] = Stay(place, self.now_us + CLAIM_US)
            else:
                self.away[person] = place

    def line(self) -> list[str]:
        """Who waits, in order."""
        return sorted(self.waiting, key=lambda person: self.waiting[person])

    def sweep(self) -> None:
        if self.now_us < self.held_until_us:  # people are still coming back
            return
        for person in self.line():
            if self.due_us[person] < self.now_us - GRACE_US:
                self.away[person] = self.waiting.pop(person)


class TheLine(RuleBasedStateMachine):
    """Does everything twice, to the line and to the model."""

    open_line: Callable[..., Line]

    @initialize(capacity=st.integers(1, 3))
    def open(self, capacity: int) -> None:
        self.line = self.open_line(capacity=capacity, rate_per_s=RATE_PER_S)
        self.line.clock.stop()
        self.model = Model(capacity, now_us=self.line.clock.now_us)
        self.passes: dict[str, str] = {}

    def teardown(self) -> None:
        if not hasattr(self, "line"):
            return
        copy_admissions()
        rows = primary().rows(
            "select pass_id, number, place, entered_after from admission where concert_id = :id order by number",
            id=self.line.concert_id,
        )
        assert list(overtakings(Admission(*row) for row in rows)) == []
        self.line.retire()

    # ---- people ----

    def begin(self) -> None:
        """No two calls at the same microsecond; else places would run ahead of the clock, which a loss resets."""
        self.time_passes(0.001)
        self.model.begin()

    @rule(name=st.sampled_from(NAMES))
    def join(self, name: str) -> None:
        self.begin()
        is_new = not any(name in where for where in (self.model.inside, self.model.waiting, self.model.away))
        if name not in self.model.inside:
            self.model.waiting[name] = self.model.away.pop(name, self.model.waiting.get(name, NEWEST))
        self.model.let_in(name)
        turn = self.line.join(name)
        place = read_token(turn.token).place
        assert turn.created == is_new
        if is_new:
            assert place > max(self.model.held.values(), default=0)
            for where in (self.model.waiting, self.model.held):
                where.update({name: place} if where is self.model.held or name in where else {})
            if name in self.model.inside:
                self.model.inside[name].place = place
        self.compare(name, turn)

    @precondition(lambda self: self.line.tokens)
    @rule(data=st.data())
    def poll(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.line.tokens)))
        place = read_token(self.line.tokens[name]).place
        self.begin()
        if place <= self.model.over.get(name, 0):
            with pytest.raises(TurnOver):
                self.line.poll(name)
            return
        if name not in self.model.inside and place < self.model.waiting.get(name, NEWEST):
            self.model.away.pop(name, None)
            self.model.waiting[name] = place
        self.model.let_in(name)
        self.compare(name, self.line.poll(name))

    def compare(self, name: str, turn: Turn) -> None:
        if name in self.model.inside:
            stay = self.model.inside[name]
            if not stay.claimed:
                stay.claimed, stay.lapses_us = True, self.model.now_us + PASS_US
            assert (turn.state, turn.position) == ("admitted", 0)
            shopper = read_pass(turn.shop_pass)
            assert (shopper.place, shopper.expires_at) == (stay.place, stay.lapses_us // SECOND)
            self.passes[name] = shopper.pass_id
            return
        assert (turn.state, turn.position) == ("waiting", self.model.line().index(name) + 1)
        assert turn.ahead == turn.position - 1
        self.model.due_us[name] = self.model.now_us + turn.poll_after_ms * 1000

    @precondition(lambda self: self.line.tokens)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.line.tokens)))
        place = read_token(self.line.tokens[name]).place
        self.begin()
        if place > self.model.over.get(name, 0):
            if name in self.model.inside:
                self.model.end(name)
            else:
                self.model.waiting.pop(name, None)
                self.model.away.pop(name, None)
                self.model.over[name] = self.model.held[name]
            self.model.let_in()
        self.line.leave(name)

    @precondition(lambda self: self.passes)
    @rule(data=st.data())
    def pay(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.passes)))
        pass_id = self.passes.pop(name)
        if self.model.running:
            self.begin()
            if name in self.model.inside and self.model.inside[name].claimed:
                self.model.end(name)
            self.model.let_in()
        end_turn(self.line.concert_id, self.line.person(name), pass_id, "paid")

    # ---- time, the operator, and what breaks ----

    @rule(seconds=st.sampled_from((0.7, 3.1, 11.3, 31.7, 61.9, 301.3)))
    def time_passes(self, seconds: float) -> None:
        self.line.clock.advance(seconds)
        self.model.now_us = self.line.clock.now_us

    @rule(command=st.one_of(
        st.tuples(st.just("capacity"), st.integers(0, 4)), st.just(("pause", None)), st.just(("resume", None))
    ))  # fmt: skip
    def turn_the_gate(self, command: tuple[str, int | None]) -> None:
        action, value = command
        if action == "capacity":
            self.model.capacity = value
        else:
            self.model.paused = action == "pause"
        if self.model.running:
            self.begin()
            self.model.sweep()
            self.model.let_in()
        self.line.gate(action, value)

    @precondition(lambda self: self.model.running)
    @rule()
    def redis_loses_everything(self) -> None:
        copy_admissions()
        self.line.forget()
        self.model.running = False

    @invariant()
    def nobody_is_over_the_capacity(self) -> None:
        if getattr(self, "line", None) and self.model.running:
            assert self.line.inside() == len(self.model.inside)


def test_the_line_does_what_the_model_does(open_line: Callable[..., Line]) -> None:
    machine = type("TheLine", (TheLine,), {"open_line": staticmethod(open_line)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate,),  # a failure's whole story is short enough; shrinking it takes minutes
            print_blob=True,
        ),
    )
