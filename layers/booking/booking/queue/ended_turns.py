"""Slots of people whose turn has ended without the line's knowing: while Redis was away, or just before a failover.

Whoever ends a turn records it in Postgres and then tells the line, once. Where that does not get through, the slot
would stay taken until its pass lapses: after a minute without Redis a shop would look full for ten. So the line's
background loop compares who is inside with what Postgres knows.
"""

import time
from typing import cast

from booking.platform.postgres import primary
from booking.platform.redis import redis, redis_away_refuses
from booking.platform.redis_keys import line_key
from booking.platform.resources import read_text
from booking.queue.line import end_turn

_LOOK_EVERY_S = 5.0
_ENDED_TURNS = read_text("booking.queue", "sql/ended_turns.sql")

_looked_s: dict[int, float] = {}
"""When each line was looked at last, on the monotonic clock; the loop is one thread."""


def free_ended_slots_when_due(concert_id: int) -> int:
    """``free_ended_slots`` every few seconds, for the loop to call at each tick. Raises RedisAway, DatabaseAway."""
    now_s = time.monotonic()
    if now_s - _looked_s.get(concert_id, -_LOOK_EVERY_S) < _LOOK_EVERY_S:
        return 0
    freed = free_ended_slots(concert_id)
    _looked_s[concert_id] = now_s
    return freed


def free_ended_slots(concert_id: int) -> int:
    """Tell the line of the turns that Postgres knows to be over; answers how many. Raises RedisAway, DatabaseAway."""
    with redis_away_refuses():
        passes = cast(list[bytes], redis("queue").hvals(line_key(concert_id, "passes")))
    if not passes:
        return 0
    ended = primary().rows(_ENDED_TURNS, pass_ids=[value.split(b" ", 1)[0].decode() for value in passes])
    for person, pass_id, reason in ended:
        end_turn(concert_id, person, pass_id, reason)
    return len(ended)
