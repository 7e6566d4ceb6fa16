"""Checking a draw by what is published: the seed, and who took part.

Nothing here is shared with the line's own Lua, so that the one can be held against the other.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from booking.operations.audit import Admission, Finding, overtakings
from booking.platform.postgres import Server
from booking.platform.resources import read_text

_SHA1_DIGITS = 13
_SPARE_BITS = 2

Drawn = tuple[int, str]
"""A draw key and the person it belongs to; in this order people come in."""


class DrawUncheckable(RuntimeError):
    """There is no draw to check, or not yet; the message says why."""


def draw_key(seed: str, person: str) -> int:
    """The first 50 bits of SHA-1 over ``<seed>:<person>``."""
    digest = hashlib.sha1(f"{seed}:{person}".encode("ascii"), usedforsecurity=False).hexdigest()
    return int(digest[:_SHA1_DIGITS], 16) >> _SPARE_BITS


def order_of(seed: str, people: Iterable[str]) -> list[Drawn]:
    """Everybody by their draw key; equal keys by the person's own bytes."""
    return sorted((draw_key(seed, person), person) for person in set(people))


@dataclass(slots=True)
class DrawCheck:
    """A draw recomputed, and how the admission record differs from it."""

    title: str
    seed: str
    seed_hash: str
    order: list[Drawn]
    let_in: int
    """How many admissions of the record are by the draw."""
    late: int
    """How many of those came after somebody behind them: they were not there at their turn, and came back."""
    missing: int
    """How many took part and have not been let in, though somebody behind them was: they are away, or left."""
    faults: list[Finding] = field(default_factory=list)


def check_draw(
    server: Server, concert_id: int, people: Iterable[str] | None = None, published_hash: str | None = None
) -> DrawCheck:
    """Recompute the draw of a concert for ``people`` (None: who was let in by it) and hold the record against it.

    ``published_hash`` is the seed's hash as somebody has noted it before the opening. Raises DrawUncheckable,
    DatabaseAway.
    """
    title, seed, seed_hash = _published(server, concert_id)
    rows = server.rows(read_text(__package__, "sql/drawn_admissions.sql"), concert_id=concert_id)
    record = [(str(row[0]), Admission(*row[1:])) for row in rows]
    took_part = {person for person, _ in record} if people is None else set(people)
    order = order_of(seed, took_part)
    late, missing = _not_at_their_turn(order, record)
    check = DrawCheck(title, seed, seed_hash, order, len(record), late, missing)
    own_hash = hashlib.sha256(seed.encode("ascii")).hexdigest()
    if own_hash != (published_hash or seed_hash).lower():
        check.faults.append(("the seed", f"has the hash {own_hash}, {published_hash or seed_hash} was published"))
    for person, admission in record:
        if person not in took_part:
            check.faults.append((f"person {person}", "was let in by the draw, and is not on the list"))
        if admission.place != (key := draw_key(seed, person)):
            check.faults.append((f"person {person}", f"was let in by place {admission.place}, the seed gives {key}"))
    check.faults += overtakings(admission for _, admission in record)
    return check


def _not_at_their_turn(order: Iterable[Drawn], record: list[tuple[str, Admission]]) -> tuple[int, int]:
    """Of the record and of who took part, how many came in late or not at all, behind somebody of a later place."""
    late, furthest = 0, -1
    for _, admission in record:
        late += admission.place < furthest
        furthest = max(furthest, admission.place)
    let_in = {person for person, _ in record}
    return late, sum(key < furthest and person not in let_in for key, person in order)


def _published(server: Server, concert_id: int) -> tuple[str, str, str]:
    rows = server.rows(read_text(__package__, "sql/draw.sql"), concert_id=concert_id)
    if not rows:
        raise DrawUncheckable(f"there is no concert {concert_id}")
    title, draw = rows[0]
    if draw is None:
        raise DrawUncheckable(f"concert {concert_id} has no draw: first come, first served")
    shown = msgspec.json.decode(draw)
    if shown["seed"] is None:
        raise DrawUncheckable(f"the seed is published when the sale opens; its hash is {shown['seed_hash']}")
    return title, shown["seed"], shown["seed_hash"]
