"""Every answer that the people of a drill got: when, to what, how it went, how long it took."""

import csv
from collections.abc import Collection, Iterator
from dataclasses import astuple, dataclass, fields
from enum import StrEnum
from pathlib import Path

from artillery.results import STEPS
from drills.harness.client import Reply

LINE_STEPS = ("step1_join_queue", "step2_queue_position")
"""The steps that need Redis."""
SHOP_STEPS = ("step3_concerts", "step4_schedules", "step5_seats", "step6_reserve", "step7_pay", "reservation")
"""The steps that a person with a pass takes; the last is the look at one's own reservation."""

assert (*LINE_STEPS, *SHOP_STEPS) == tuple(STEPS), "the steps have one set of names"


class Outcome(StrEnum):
    """How an answer went."""

    OK = "ok"
    DECLINED = "declined"
    """A no that belongs to the business: the seat is taken, the turn is over."""
    REFUSED = "refused"
    """503 with Retry-After: a part is away, and the person knows when to ask again."""
    BROKEN = "broken"
    """What must never be: another 5xx or 4xx, a 503 that says nothing, no answer at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Times are in seconds since the drill began.

    ``asked_s`` is when the person wanted to ask: waiting for a free connection is part of ``took_s``.
    """

    step: str
    asked_s: float
    took_s: float
    status: int
    problem: str
    """The problem's ``type``, or the fault where there is no answer."""
    outcome: Outcome

    @property
    def at_s(self) -> float:
        """When it came."""
        return self.asked_s + self.took_s


def outcome_of(reply: Reply, accepted: Collection[int]) -> Outcome:
    """How a reply went for somebody who accepts these statuses."""
    if reply.status in accepted:
        return Outcome.OK if reply.status < 400 else Outcome.DECLINED
    if reply.status == 503 and reply.retry_after_s:
        return Outcome.REFUSED
    return Outcome.BROKEN


class Record:
    """The answers of a drill in the order in which they came."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def add(self, answer: Answer) -> None:
        self.answers.append(answer)

    def select(
        self,
        *,
        steps: Collection[str] = tuple(STEPS),
        outcomes: Collection[Outcome] = tuple(Outcome),
        from_s: float = 0.0,
        to_s: float = float("inf"),
    ) -> Iterator[Answer]:
        """The answers of these steps and outcomes that came in ``[from_s, to_s)``."""
        for answer in self.answers:
            if answer.outcome in outcomes and answer.step in steps and from_s <= answer.at_s < to_s:
                yield answer

    def write(self, path: Path) -> None:
        """All of it as CSV with a header."""
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow([field.name for field in fields(Answer)])
            for answer in self.answers:
                step, asked_s, took_s, *rest = astuple(answer)
                rows.writerow([step, f"{asked_s:.4f}", f"{took_s:.4f}", *rest])
