"""What a drill is: something that breaks, the people whom it meets, and the bounds that must hold all the same."""

import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import drills
from artillery.results import STEPS
from artillery.thresholds import Comparison, is_met
from drills.harness.crowd import Plan
from drills.harness.evidence import Evidence
from drills.harness.people import most_inside, overtaken, places_lost, worse_positions
from drills.harness.record import SHOP_STEPS
from drills.harness.scene import Scene
from drills.harness.stage import Gate, Stage, Topology

_SIGNS = {"<=": "≤", ">=": "≥"}
_ANSWERS_BEFORE_MIN = 20


@dataclass(frozen=True, slots=True)
class Bound:
    """What must hold. ``label`` says what is measured; None is measured where there is nothing."""

    label: str
    comparison: Comparison
    bound: float
    measure: Callable[[Evidence], float | None]
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.label}: {self.expected}"

    @property
    def expected(self) -> str:
        """The bound in words."""
        if self.comparison == "<=" and self.bound == 0:
            return "none"
        return f"{_SIGNS[self.comparison]} {self.in_words(self.bound)}"

    def in_words(self, value: float) -> str:
        """A value with its unit."""
        return f"{_number(value)} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Judged:
    """A bound with what was measured."""

    bound: Bound
    value: float | None

    @property
    def passed(self) -> bool:
        return is_met(self.value, self.bound.comparison, self.bound.bound)

    @property
    def words(self) -> str:
        """Expected and measured, for people."""
        measured = "not measured" if self.value is None else self.bound.in_words(self.value)
        return f"{self.bound.label}: {measured} (must be {self.bound.expected})"


@dataclass(frozen=True, slots=True)
class Drill:
    """An incident to be replayed.

    ``incident`` tells it in the order of time, while people come and go; ``duration_s`` is how long that takes, at
    least and about. ``felt`` measures what shows that the incident did something: without it the drill proves nothing.
    """

    name: str
    breaks: str
    """One line: what breaks."""
    plan: Plan
    gate: Gate
    incident: Callable[[Scene], Awaitable[None]]
    duration_s: int
    felt: Bound
    bounds: Sequence[Bound]
    topology: Topology = field(default_factory=Topology)
    afterwards: Callable[[Stage, Evidence], None] | None = None
    """What somebody does when all have gone home, before the audit looks: what an incident leaves to be settled."""
    may_break: bool = False
    """Whether answers other than 200s and 503 with Retry-After are part of it: a killed gateway cuts connections."""

    def all_bounds(self) -> list[Bound]:
        """The drill's own bounds and those that every drill has."""
        common = [
            Bound("answers before the break", ">=", _ANSWERS_BEFORE_MIN, _answers_before),
            Bound("refused or broken before the break", "<=", 0, _failures_before),
        ]
        if not self.may_break:
            common.append(Bound("answers that must never be (500, cut, a 503 without Retry-After)", "<=", 0, _broken))
        return [*common, self.felt, *self.bounds]

    def judge(self, evidence: Evidence) -> list[Judged]:
        """Every bound against the evidence."""
        return [Judged(bound, bound.measure(evidence)) for bound in self.all_bounds()]


def proved_nothing(drill: Drill, judged: Sequence[Judged]) -> bool:
    """Whether the incident left no trace: then the bounds held for want of an incident."""
    return any(one.bound is drill.felt and not one.passed for one in judged)


def all_drills() -> list[Drill]:
    """Every drill in load/drills, by name; one file a drill."""
    names = [module.name for module in pkgutil.iter_modules(drills.__path__) if not module.ispkg]
    return sorted((importlib.import_module(f"drills.{name}").DRILL for name in names), key=lambda drill: drill.name)


# -- bounds that several drills have -------------------------------------------------------------------------------


def refused_at_all(*steps: str) -> Bound:
    """Felt: at these steps somebody was refused, or got no answer."""
    return Bound("refused or broken after the break", ">=", 1, lambda seen: _count(seen.failures(steps)))


def back_within(seconds: float, step: str) -> Bound:
    """The step answers again, for good, so soon after the break."""
    return Bound(f"{STEPS[step]}: back after the break", "<=", seconds, lambda seen: seen.back_after_s(step), "s")


def back_within_of_heal(seconds: float, step: str) -> Bound:
    """The step answers again, for good, so soon after what was broken is whole."""

    def measure(seen: Evidence) -> float | None:
        back_s, healed_s = seen.back_after_s(step), seen.moment("heal")
        return None if back_s is None or healed_s is None else max(0.0, seen.broke_s + back_s - healed_s)

    return Bound(f"{STEPS[step]}: back after it is whole", "<=", seconds, measure, "s")


def the_shop_goes_on(answers_min: int) -> list[Bound]:
    """Each of steps 3 to 7 is met often enough while it is broken, and none is refused or broken from then on."""

    def fewest(seen: Evidence) -> float:
        return float(min(seen.latency((step,), "during").answers for step in SHOP_STEPS))

    return [
        Bound("steps 3 to 7: fewest answers of one while it was broken", ">=", answers_min, fewest),
        no_failures(*SHOP_STEPS, name="steps 3 to 7"),
    ]


def no_failures(*steps: str, name: str) -> Bound:
    """None of these steps is refused or broken, from the break to the end."""
    return Bound(f"{name}: refused or broken", "<=", 0, lambda seen: _count(seen.failures(steps)))


def slowest_within(seconds: float, *steps: str, name: str) -> Bound:
    """No answer of these steps takes longer, from the break to the end."""

    def measure(seen: Evidence) -> float | None:
        answers = seen.record.select(steps=steps, from_s=seen.broke_s, to_s=seen.ended_s)
        return max((answer.took_s for answer in answers), default=None)

    return Bound(f"{name}: slowest answer", "<=", seconds, measure, "s")


def p95_within(seconds: float, *steps: str, name: str) -> Bound:
    """Of each of these steps that people asked for 95 of 100 answers come within so long while it is broken."""

    def measure(seen: Evidence) -> float | None:
        asked = [one for one in (seen.latency((step,), "during") for step in steps) if one.answers]
        return max((one.p95_ms / 1000 for one in asked), default=None)

    return Bound(f"{name}: p95 of the slowest while it is broken", "<=", seconds, measure, "s")


def let_in_after_heal(count: int, within_s: float) -> Bound:
    """The line moves again soon, and does not take the slots for full of people who have paid meanwhile."""

    def measure(seen: Evidence) -> float | None:
        healed_s = seen.moment("heal")
        if healed_s is None:
            return None
        return _count(at_s for at_s in seen.admissions_s() if healed_s <= at_s < healed_s + within_s)

    return Bound(f"people let in within {within_s:g} s after it is whole", ">=", count, measure)


def waiting_at_break(count: int) -> Bound:
    """Enough people had something to lose."""
    return Bound("people in the line when it broke", ">=", count, lambda seen: float(len(seen.turns_before())))


def nobody_over_capacity(capacity: int) -> Bound:
    """As far as the people themselves know; the audit knows it from the record of admissions (I4)."""
    return Bound("most people inside", "<=", capacity, lambda seen: float(most_inside(seen.people, seen.start_us)))


def nobody_loses_the_place() -> list[Bound]:
    """Everybody keeps the place on the token, hears of no worse one, and is overtaken by nobody who came later."""
    return [
        Bound("people who lost their place", "<=", 0, lambda seen: _count(places_lost(seen.people))),
        Bound(
            "positions worse than the places say", "<=", 0, lambda seen: _count(worse_positions(seen.people, seen.told))
        ),
        Bound(
            "people overtaken by somebody who came after the break", "<=", 0,
            lambda seen: _count(overtaken(seen.people, seen.start_us, seen.broke_us)),
        ),
    ]  # fmt: skip


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def _answers_before(seen: Evidence) -> float:
    return _count(seen.record.select(to_s=seen.broke_s))


def _failures_before(seen: Evidence) -> float:
    return _count(seen.failures(from_s=0.0, to_s=seen.broke_s))


def _broken(seen: Evidence) -> float:
    return _count(seen.broken())


def _count(found: Iterable[object]) -> float:
    return float(sum(1 for _ in found))
