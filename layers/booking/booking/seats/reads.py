"""An operator's switch: where the hot reads of one concert, its seat maps and its schedules, come from.

``cache`` is the usual: the cache, and behind it the database. ``database`` reads past the cache, for a cache that is
suspected or a server of it that is in trouble: the version rule still lets a replica answer for the maps.

Postgres has the settings, as an append-only history. Readers learn of them where they look anyway, in the keys of the
cache, so the switch costs nobody a trip and all processes obey at once. The sweeper tells them again, for a Redis that
was away or has lost them; and whoever fills a cold cache hears it from Postgres in the statement that reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from redis.exceptions import RedisError

from booking.catalog.concerts import ConcertUnknown
from booking.catalog.schedules import call_of_switch as switch_of_schedules
from booking.catalog.schedules import reads_past_cache as schedules_past_cache
from booking.platform.postgres import primary
from booking.platform.problems import BadRequest
from booking.platform.redis import Call, run_together
from booking.platform.resources import read_text
from booking.platform.telemetry import count
from booking.seats.seat_map_cache import MARKER_KEPT_S, maps_past_cache
from booking.seats.seat_map_cache import call_of_switch as switch_of_map

Source = Literal["cache", "database"]
SOURCES: tuple[Source, ...] = get_args(Source)
REASON_LENGTH_MAX = 500
CHANGES_SHOWN = 10
_REPEATED_S = MARKER_KEPT_S + 300
"""What Redis kept over an outage ends by itself before that."""

_READS = read_text(__package__, "sql/reads.sql")
_TO_REPEAT = read_text(__package__, "sql/reads_to_repeat.sql")
_CHANGE = "select change_reads(cast(:concert_id as bigint), :source, :changed_by, :reason)::text"


class UnusableReadsCommand(BadRequest):
    """The reads cannot be told that."""

    slug = "reads-command-unusable"


@dataclass(frozen=True, slots=True)
class ReadsChange:
    """A change that is recorded."""

    concert_id: int
    source: Source
    schedules: int
    """How many schedules' maps it is about, beside the list of them."""
    in_force: bool
    """Whether the readers know. Else Redis is away: then everybody reads from the database anyway, and the sweeper
    tells it when it is back."""


def change_reads(concert_id: int, source: str, *, by: str, reason: str = "") -> ReadsChange:
    """Read the concert's maps and schedules from ``source`` from now on, as ``by`` asks for ``reason``.

    ``cache`` also forgets what is cached, if it was the cache already. Raises UnusableReadsCommand, ConcertUnknown,
    DatabaseAway.
    """
    if source not in SOURCES:
        raise UnusableReadsCommand(f"reads come from {' or '.join(SOURCES)}, not from {source!r}")
    if len(reason) > REASON_LENGTH_MAX:
        raise UnusableReadsCommand(f"a reason may have {REASON_LENGTH_MAX} characters")
    changed = primary().document(_CHANGE, concert_id=concert_id, source=source, changed_by=by, reason=reason or source)
    if changed is None:
        raise ConcertUnknown(f"no concert {concert_id}")
    schedule_ids = changed["schedule_ids"]
    calls = _calls(concert_id, "database", schedule_ids)  # forgets what is cached
    if source == "cache":
        calls += _calls(concert_id, "cache", schedule_ids)
    return ReadsChange(concert_id, source, len(schedule_ids), _tell(calls))


def show_reads(concert_id: int) -> dict[str, Any]:
    """Where the concert's reads come from, and its newest changes; ``told``: of how many of its ``schedules`` the
    readers of the maps go to the database, and whether those of the list do (None: Redis is away, so all do).

    Raises ConcertUnknown, DatabaseAway.
    """
    shown: dict[str, Any] | None = primary().document(_READS, concert_id=concert_id, changes=CHANGES_SHOWN)
    if shown is None:
        raise ConcertUnknown(f"no concert {concert_id}")
    schedule_ids = shown.pop("schedule_ids")
    shown["schedules"] = len(schedule_ids)
    try:
        told = {"maps": maps_past_cache(schedule_ids), "list": schedules_past_cache(concert_id)}
    except RedisError:
        return shown | {"told": None}
    return shown | {"told": told}


def repeat_reads() -> int:
    """Tell the readers once more what may have been lost on the way; returns of how many concerts."""
    concerts = primary().rows(_TO_REPEAT, seconds=_REPEATED_S)
    _tell([call for concert_id, source, schedule_ids in concerts for call in _calls(concert_id, source, schedule_ids)])
    return len(concerts)


def _calls(concert_id: int, source: Source, schedule_ids: Iterable[int]) -> list[Call]:
    past_cache = source == "database"
    maps = [switch_of_map(schedule_id, past_cache=past_cache) for schedule_id in schedule_ids]
    return [switch_of_schedules(concert_id, past_cache=past_cache), *maps]


def _tell(calls: list[Call]) -> bool:
    try:
        run_together(calls)
    except RedisError:
        count("ReadsNotTold")
        return False
    return True
