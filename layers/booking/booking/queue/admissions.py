"""The record of who was let in: the lines' streams, copied to Postgres once a second.

A stream holds exactly what is not stored yet: its entries are removed after the statement that stores them has
committed. So a copy that dies, or two that overlap, store an entry twice at worst, which the statement makes harmless.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import msgspec

from booking.platform.postgres import DatabaseAway, primary
from booking.platform.redis import redis, redis_away_refuses
from booking.platform.redis_keys import line_key
from booking.platform.resources import read_text
from booking.queue.ended_turns import free_ended_slots_when_due
from booking.queue.line import set_gate

_BATCH = 2000
_BATCHES_PER_TICK = 50
_OF_ADMISSION = ("epoch", "number", "place", "entered_after", "gate_change_id")
_RUNNING_LINES = read_text("booking.queue", "sql/running_lines.sql")
_COPY_ADMISSIONS = read_text("booking.queue", "sql/copy_admissions.sql")

Entry = tuple[bytes, dict[bytes, bytes]]
Turns = dict[str, dict[str, Any]]


def keep_lines_moving() -> int:
    """One tick of the background loop: repeat the newest settings, free slots that nobody has freed, let people in
    where nobody polls, then copy what happened.

    Answers how many people and entries it moved. Raises RedisAway, DatabaseAway; a line's own fault not before every
    other line has been served.
    """
    lines = running_lines()

    def let_in(concert_id: int) -> int:
        return set_gate(concert_id, lines[concert_id]).admitted

    return _for_each(lines, free_ended_slots_when_due, let_in, _copy_line)


def copy_admissions() -> int:
    """Store in ``admission`` what the streams of all running lines hold; answers the number of entries stored.

    Raises RedisAway, DatabaseAway.
    """
    return _for_each(running_lines(), _copy_line)


def turns_to_copy() -> int:
    """How many entries the streams of all running lines hold. Raises RedisAway, DatabaseAway."""
    with redis_away_refuses():
        return sum(int(redis("queue").xlen(line_key(concert_id, "admissions"))) for concert_id in running_lines())


def running_lines() -> dict[int, dict[str, Any]]:
    """The concerts that may have people inside, and the settings of each line. Raises DatabaseAway.

    Postgres knows them however much Redis forgets.
    """
    return {int(concert_id): msgspec.json.decode(settings) for concert_id, settings in primary().rows(_RUNNING_LINES)}


def _for_each(concert_ids: Iterable[int], *acts: Callable[[int], int]) -> int:
    """Do each act for every line in turn; answers the sum. A fault of one line (its part of a cluster is down, it holds
    what nobody can read) keeps no other waiting: the first is raised at the end. All need Postgres: that ends it."""
    done, faults = 0, list[Exception]()
    for act in acts:
        for concert_id in concert_ids:
            try:
                done += act(concert_id)
            except DatabaseAway:
                raise
            except Exception as fault:
                fault.add_note(f"in the line of concert {concert_id}")
                faults.append(fault)
    if faults:
        raise faults[0]
    return done


def _copy_line(concert_id: int) -> int:
    key, copied = line_key(concert_id, "admissions"), 0
    for _ in range(_BATCHES_PER_TICK):
        with redis_away_refuses():
            entries = cast(list[Entry], redis("queue").xrange(key, count=_BATCH))
        if entries:
            _store(concert_id, entries)
            with redis_away_refuses():
                redis("queue").xtrim(key, minid=_after(entries[-1][0]), approximate=False)
            copied += len(entries)
        if len(entries) < _BATCH:
            break
    return copied


def _after(entry_id: bytes) -> str:
    """The smallest id above ``entry_id``."""
    milliseconds, _, sequence = entry_id.decode().partition("-")
    return f"{milliseconds}-{int(sequence) + 1}"


def _store(concert_id: int, entries: list[Entry]) -> None:
    turns = merge_entries(entries)
    rows = list(turns.values())

    def column(name: str) -> list[Any]:
        return [row.get(name) for row in rows]

    primary().rows(
        _COPY_ADMISSIONS,
        concert_id=concert_id,
        pass_ids=list(turns),
        persons=column("person"),
        epochs=column("epoch"),
        numbers=column("number"),
        places=column("place"),
        entered_afters=column("entered_after"),
        gate_change_ids=column("gate_change_id"),
        admitteds_us=column("admitted_us"),
        claimeds_us=column("claimed_us"),
        expireds_us=column("expires_us"),
        endeds_us=column("ended_us"),
        end_reasons=column("end_reason"),
        ended_afters=column("ended_after"),
    )


def merge_entries(entries: list[Entry]) -> Turns:
    """What the entries say of each turn, by pass id: one statement must not touch a row twice."""
    turns: Turns = {}
    for _, raw in entries:
        entry = {name.decode(): value.decode() for name, value in raw.items()}
        turn = turns.setdefault(entry["pass_id"], {"person": entry["person"]})
        at_us = int(entry["at_us"])
        match entry["type"]:
            case "admit":
                turn["admitted_us"] = at_us
                turn |= _numbers(entry, *_OF_ADMISSION)
            case "claim":
                turn["claimed_us"] = at_us
            case "end":
                turn |= {"ended_us": at_us, "end_reason": entry["reason"], **_numbers(entry, "ended_after")}
        if "expires_us" in entry:
            turn["expires_us"] = max(int(entry["expires_us"]), turn.get("expires_us", 0))
    return turns


def _numbers(entry: dict[str, str], *names: str) -> dict[str, int]:
    # A stream may still hold entries of an older version, which lack some.
    return {name: int(entry[name]) for name in names if name in entry}
