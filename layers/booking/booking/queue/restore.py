"""Bringing a line back from Postgres when Redis has no gate for it: at its first start, or after a loss.

After a loss nobody is let in for ``rebuild_hold_s``, so that the people at the front poll themselves back before
others take their turn, and as many people as the last moments may have let in unrecorded count as inside.
"""

from collections.abc import Iterator
from itertools import batched
from typing import Any

from booking.platform.postgres import primary
from booking.platform.problems import NotFound
from booking.platform.redis import redis, redis_away_refuses
from booking.platform.redis_keys import line_key, line_keys
from booking.platform.settings import settings
from booking.queue.scripts import script

_OPEN_LINE = "select open_line(:concert_id, :pass_life_s, :hold_s)"
_TURNS_PER_CALL = 1000
# The copy to Postgres is at most 1 s old; as much again for a copy that was under way.
_UNRECORDED_S = 2


class ConcertUnknown(NotFound):
    """There is no such concert."""

    slug = "concert-unknown"


def restore_line(concert_id: int, common: list[str | float]) -> None:
    """Restore the line of a concert in Redis; ``common`` are the arguments that all scripts of the line take.

    Does no harm to a line that another handler restores or has restored. Raises ConcertUnknown, DatabaseAway and
    RedisAway.
    """
    try:
        now = settings()
        line = primary().document(
            _OPEN_LINE, concert_id=concert_id, pass_life_s=now.pass_ttl_s, hold_s=now.rebuild_hold_s
        )
        if line is None:
            raise ConcertUnknown
        with redis_away_refuses():
            _restore(concert_id, common, line)
    except BaseException:
        with redis_away_refuses():
            redis("queue").delete(line_key(concert_id, "restoring"))
        raise


def _restore(concert_id: int, common: list[str | float], line: dict[str, Any]) -> None:
    client, keys = redis("queue"), line_keys(concert_id)
    for chunk in batched(line["turns"], _TURNS_PER_CALL, strict=False):
        script("restore_turns")(client, keys, [*common, *_flattened(chunk)])
    lost = line["lost"]
    hold_s = settings().rebuild_hold_s if lost else 0
    phantoms = round(line["unrecorded_rate"] * _UNRECORDED_S) if lost else 0
    script("restore_gate")(client, keys, [*common, hold_s, phantoms, *_gate_fields(line)])


def _flattened(turns: tuple[list[Any], ...]) -> Iterator[str | int]:
    for person, state, pass_id, number, place, claimed, expires_us in turns:
        yield from (person, state, pass_id, number, place, f"{'+' if claimed else ''}{expires_us}")


def _gate_fields(line: dict[str, Any]) -> Iterator[str | float]:
    for pair in line["settings"].items():
        yield from pair
    turns = line["turns"]
    yield from ("last_place", max((turn[4] for turn in turns), default=0))
    yield from ("number", max((turn[3] for turn in turns), default=0))
