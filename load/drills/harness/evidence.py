"""What a drill has to show: answers, people, marks on the timeline; and the questions that bounds ask of them."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Literal

from artillery.results import STEPS
from drills.harness.books import Movement
from drills.harness.people import Person, Ticket, Told, Turn, turns_of
from drills.harness.record import Answer, Outcome, Record
from drills.harness.watch import Sample

MarkKind = Literal["begin", "break", "heal", "note", "end"]
Phase = Literal["before", "during", "after"]

PHASES: tuple[Phase, ...] = ("before", "during", "after")
FAILURES = (Outcome.REFUSED, Outcome.BROKEN)


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the drill, in seconds since it began."""

    at_s: float
    kind: MarkKind
    words: str


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the good answers of a step took, in ms, and how many were none."""

    answers: int
    refused: int
    broken: int
    p50_ms: float
    p95_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Outage:
    """When a step was refused or broken, in seconds since the break."""

    first_s: float
    last_s: float
    back_s: float | None
    """The first good answer after the last bad one; None when there was none any more."""
    count: int
    problem: str
    """Of the first bad answer."""


@dataclass(slots=True)
class Evidence:
    """Everything that a drill has gathered. ``start_us`` is its zero as a Unix time in microseconds."""

    start_us: int
    record: Record = field(default_factory=Record)
    people: Sequence[Person] = ()
    told: Sequence[Told] = ()
    tickets: Sequence[Ticket] = ()
    samples: list[Sample] = field(default_factory=list)
    """What could be seen of payments and events meanwhile."""
    books: Sequence[Movement] | None = None
    """The payment firms' books after the audit; None when they could not be read."""
    marks: list[Mark] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    """What the incident itself measured, by name."""

    # -- moments --

    def moment(self, kind: MarkKind) -> float | None:
        """When the first mark of this kind was made."""
        return next((mark.at_s for mark in self.marks if mark.kind == kind), None)

    @property
    def broke_s(self) -> float:
        """When the drill broke something; never, when it did not."""
        moment = self.moment("break")
        return float("inf") if moment is None else moment

    @property
    def broke_us(self) -> int:
        """The same as a Unix time in microseconds; 0 when it broke nothing."""
        return self.start_us + int(self.broke_s * 1e6) if math.isfinite(self.broke_s) else 0

    @property
    def ended_s(self) -> float:
        """When people began to go home."""
        moment = self.moment("end")
        return float("inf") if moment is None else moment

    @property
    def over_s(self) -> float:
        """When it was over for the people: healed, and no answer refused or broken any more."""
        healed_s = self.moment("heal")
        bad = [answer.at_s for answer in self.failures(to_s=self.ended_s)]
        last_s = max([self.broke_s, *bad])
        return last_s if healed_s is None else max(last_s, healed_s)

    # -- answers --

    def failures(
        self, steps: Collection[str] = tuple(STEPS), from_s: float | None = None, to_s: float = float("inf")
    ) -> Iterator[Answer]:
        """The answers that were refused or broken; from the break on unless told otherwise."""
        return self.record.select(
            steps=steps, outcomes=FAILURES, from_s=self.broke_s if from_s is None else from_s, to_s=to_s
        )

    def broken(self) -> Iterator[Answer]:
        """The answers that must never be, at any time."""
        return self.record.select(outcomes=(Outcome.BROKEN,))

    def outage(self, steps: Collection[str]) -> Outage | None:
        """The outage of these steps, None when nothing was refused. People who go home do not count."""
        bad = sorted(self.failures(steps, to_s=self.ended_s), key=lambda answer: answer.at_s)
        if not bad:
            return None
        last_s = bad[-1].at_s
        good = (answer.at_s for answer in self.record.select(steps=steps, outcomes=(Outcome.OK,), from_s=last_s))
        back_s = min(good, default=None)
        return Outage(
            first_s=bad[0].at_s - self.broke_s,
            last_s=last_s - self.broke_s,
            back_s=None if back_s is None else back_s - self.broke_s,
            count=len(bad),
            problem=f"{bad[0].status or 'no answer'} {bad[0].problem}",
        )

    def back_after_s(self, *steps: str) -> float | None:
        """From the break to the first good answer after the last bad one; 0 when none was bad, None: never back."""
        outage = self.outage(steps)
        return 0.0 if outage is None else outage.back_s

    def phase(self, phase: Phase) -> tuple[float, float]:
        """From when to when it lasted, in seconds since the drill began."""
        match phase:
            case "before":
                return 0.0, self.broke_s
            case "during":
                return self.broke_s, self.over_s
            case _:
                return self.over_s, self.ended_s

    def latency(self, steps: Collection[str], phase: Phase) -> Latency:
        """Of the good answers that came in a phase."""
        from_s, to_s = self.phase(phase)
        took: list[float] = []
        refused = broken = 0
        for answer in self.record.select(steps=steps, from_s=from_s, to_s=to_s):
            if answer.outcome is Outcome.REFUSED:
                refused += 1
            elif answer.outcome is Outcome.BROKEN:
                broken += 1
            else:
                took.append(answer.took_s * 1000)
        took.sort()
        return Latency(len(took), refused, broken, percentile(took, 0.5), percentile(took, 0.95), percentile(took, 1))

    def pending_answers(self) -> Iterator[Answer]:
        """The payments whose outcome was open when they were answered, from the break on."""
        answers = self.record.select(steps=("step7_pay",), from_s=self.broke_s)
        return (answer for answer in answers if answer.status == 202)

    # -- what was watched --

    def most(self, name: str, from_s: float | None = None, to_s: float = float("inf")) -> float | None:
        """The highest value seen, from the break on unless told otherwise; None when it was never seen."""
        since_s = self.broke_s if from_s is None else from_s
        seen = (sample.values.get(name) for sample in self.samples if since_s <= sample.at_s < to_s)
        return max((value for value in seen if value is not None), default=None)

    def from_when(self, name: str, *, at_most: float, from_s: float) -> float | None:
        """The first moment from which on it was that low to the end; None when the last look saw more."""
        moment: float | None = None
        for sample in reversed(self.samples):
            if sample.at_s < from_s:
                break
            if (value := sample.values.get(name)) is None:
                continue
            if value > at_most:
                return moment
            moment = sample.at_s
        return moment

    def at_s(self, at: str) -> float:
        """A moment in RFC 3339 on the drill's clock."""
        return datetime.fromisoformat(at).timestamp() - self.start_us / 1e6

    # -- the line --

    def admissions_s(self) -> list[float]:
        """When people were let in, as their passes say, in order."""
        return sorted(
            (turn.admission - self.start_us) / 1e6 for turn in turns_of(self.people) if turn.admission is not None
        )

    def longest_pause_s(self) -> float | None:
        """The longest time in which nobody was let in, from the break to the end; None when nobody was, after it."""
        after = [at_s for at_s in self.admissions_s() if self.broke_s <= at_s <= self.ended_s]
        if not after:
            return None
        moments = [self.broke_s, *after]
        return max(later - earlier for earlier, later in pairwise(moments))

    def turns_before(self) -> list[Turn]:
        """The turns of the people who waited when it broke."""
        return [
            turn
            for turn in turns_of(self.people)
            if turn.told_s < self.broke_s and (turn.fetched_s or turn.over_s or float("inf")) > self.broke_s
        ]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the ordered values lie (nearest rank); 0 for none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
