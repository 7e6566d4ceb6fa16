"""What the people of a drill know of their turns, and what it proves: who kept the place, who was overtaken.

All of it comes from what people were told and from the signed papers they hold, so it does not depend on what Encore
remembers. A token carries the place, a pass the place and the admission number; both are Unix times in microseconds.
"""

import csv
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path

ETA_S, ETA_SHARE = 3.0, 0.2


@dataclass(frozen=True, slots=True)
class Ticket:
    """When somebody's payment was answered, and when they had the ticket, in seconds since the drill began."""

    paid_s: float
    had_s: float


@dataclass(slots=True)
class Turn:
    """One way through the line. Times are in seconds since the drill began."""

    place: int
    told_s: float
    """When the place was first told."""
    waited_s: float = 0.0
    """When the last question was asked to which the answer was: you are waiting."""
    admission: int | None = None
    """The admission number in the pass: about when the person was let in."""
    pass_place: int | None = None
    fetched_s: float | None = None
    """When the pass arrived."""
    over_s: float | None = None
    """When the person asked for what ends the turn: paying, leaving."""
    lost: str = ""
    """Why a turn ended that its owner had not used up; empty unless that happened."""


@dataclass(slots=True)
class Person:
    """Somebody who came."""

    user_id: str
    asked_s: float | None = None
    """When they first asked for a place."""
    turns: list[Turn] = field(default_factory=list)
    outcome: str = "under way"


@dataclass(frozen=True, slots=True)
class Told:
    """One answer to somebody who waits."""

    asked_s: float
    at_s: float
    place: int
    ahead: int
    eta_s: int | None


def turns_of(people: Iterable[Person]) -> list[Turn]:
    """All turns, by place."""
    return sorted((turn for person in people for turn in person.turns), key=lambda turn: turn.place)


def places_lost(people: Iterable[Person]) -> list[str]:
    """A line for each turn that ended unused, or whose pass was given for another place than the token says."""
    found = []
    for turn in turns_of(people):
        if turn.lost:
            found.append(f"place {turn.place}: {turn.lost}")
        elif turn.pass_place not in (None, turn.place):
            found.append(f"place {turn.place}: the pass is for place {turn.pass_place}")
    return found


def worse_positions(people: Sequence[Person], told: Iterable[Told]) -> list[str]:
    """A line for each answer that told more people ahead than can have been there.

    Ahead of a place are at most the people with an earlier one whose pass had not arrived when the question was asked,
    and those who had asked for a place and not been told it: their place may be any.
    """
    turns = turns_of(people)
    places = [turn.place for turn in turns]
    arrived = sorted((turn.fetched_s, turn.place) for turn in turns if turn.fetched_s is not None)
    asked = sorted(person.asked_s for person in people if person.asked_s is not None)
    answered = sorted(person.turns[0].told_s for person in people if person.turns)
    inside: list[int] = []
    found, next_arrival = [], 0
    for answer in sorted(told, key=lambda one: one.asked_s):
        while next_arrival < len(arrived) and arrived[next_arrival][0] < answer.asked_s:
            insort(inside, arrived[next_arrival][1])
            next_arrival += 1
        earlier = bisect_left(places, answer.place) - bisect_left(inside, answer.place)
        untold = bisect_left(asked, answer.at_s) - bisect_left(answered, answer.asked_s)
        if answer.ahead > earlier + untold:
            found.append(
                f"place {answer.place} at {answer.at_s:.1f} s: {answer.ahead} ahead, at most {earlier + untold} were"
            )
    return found


def overtaken(people: Iterable[Person], start_us: int, since_us: int = 0) -> list[str]:
    """A line for each turn that somebody overtook who came after ``since_us`` and later than the turn's owner.

    Overtaken is who was let in after somebody with a later place, or was told to wait when they were in already. People
    who poll as they are told are never passed over, so this is stricter than I5. ``start_us``: when the drill began.
    """
    found = []
    first_later: int | None = None
    for turn in reversed(turns_of(people)):
        if first_later is not None and _waited_at(turn, first_later, start_us):
            found.append(
                f"place {turn.place}: let in as {turn.admission or 'nobody'}, after {first_later} with a later place"
            )
        if turn.admission is not None and turn.place >= since_us:
            first_later = min(turn.admission, first_later or turn.admission)
    return found


def most_inside(people: Iterable[Person], start_us: int) -> int:
    """The most people who were inside at one moment, as far as they themselves know: never too high.

    ``start_us``: when the drill began.
    """
    changes: list[tuple[float, int]] = []
    for turn in turns_of(people):
        if turn.admission is not None:
            changes.append((turn.admission, 1))
            if turn.over_s is not None:
                changes.append((start_us + turn.over_s * 1e6, -1))
    most = inside = 0
    for _, change in sorted(changes):
        inside += change
        most = max(most, inside)
    return most


def honest_etas(people: Iterable[Person], told: Iterable[Told], start_us: int) -> float | None:
    """The share of the told waits that came true to within ``ETA_S`` or ``ETA_SHARE`` of the real one; None for none.

    Only waits that had ended by the end of the drill can be judged: those of people who were let in.
    """
    let_in_s = {
        turn.place: (turn.admission - start_us) / 1e6 for turn in turns_of(people) if turn.admission is not None
    }
    honest = []
    for answer in told:
        if answer.eta_s is not None and answer.place in let_in_s:
            waited_s = let_in_s[answer.place] - answer.at_s
            honest.append(abs(answer.eta_s - waited_s) <= max(ETA_S, ETA_SHARE * waited_s))
    return sum(honest) / len(honest) if honest else None


def write_people(people: Iterable[Person], path: Path) -> None:
    """A row for each turn, as CSV with a header; the number tells people apart."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["person", "outcome", "asked_s", *(field.name for field in fields(Turn))])
        for number, person in enumerate(people, start=1):
            for turn in person.turns:
                rows.writerow([number, person.outcome, person.asked_s, *astuple(turn)])


def _waited_at(turn: Turn, number: int, start_us: int) -> bool:
    """Whether the turn's owner waited when admission ``number`` was given."""
    if turn.admission is not None:
        return turn.admission > number
    return start_us + turn.waited_s * 1e6 > number
