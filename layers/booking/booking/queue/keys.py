"""Every Redis key of a waiting line.

All keys of one concert carry the hash tag ``{c<concert id>}``, so a script that touches them runs on one node of a
Redis Cluster. A person is the 22 characters of ``people.person_of``. A place is a whole number of microseconds, an
expiry or a deadline a Unix time in microseconds.

========== ====== ==================================================================================================
gate       HASH   settings (epoch, state, capacity, rate, paused, message, opens_us, sold_out; seed: of a draw, hidden
                  until it opens; change_id: the row of gate_change that they are from) and counters (last_place,
                  number, the rate's tokens, the measured pace, lapse_us: before then no turn inside lapses,
                  heard_us: when the line was last asked anything); its absence means REBUILD
waiting    ZSET   person → place; who was collected for a draw → 50 bits of a hash of its seed and the person, below
                  every place taken from the clock
seen       ZSET   person waiting → when they were told to poll next; 10 s later they count as absent
inside     ZSET   person → when the turn lapses; ``phantom:<n>`` stands for somebody whom a lost Redis may have let in
passes     HASH   person inside → ``<pass id> <admission number> <place> <claimed 0|1>``
over       HASH   person → ``<highest place whose turn is over> <reason>``
returned   HASH   person waiting who came back to an earlier place → the admission number at that moment
admissions STREAM what the copy to Postgres has not stored yet: type admit | claim | end
away       ZSET   person who was passed over, not being there → the place kept for them
restoring  STRING held by the one handler that restores the line from Postgres, for at most 5 s
========== ====== ==================================================================================================
"""

from functools import lru_cache

NAMES = (
    "gate",
    "waiting",
    "seen",
    "inside",
    "passes",
    "over",
    "returned",
    "admissions",
    "away",
    "restoring",
)
"""In the order in which every script of the line takes its KEYS."""


def line_key(concert_id: int, name: str) -> str:
    """The key ``name`` (one of ``NAMES``) of a concert's line."""
    return f"line:{{c{concert_id}}}:{name}"


@lru_cache(maxsize=1024)
def line_keys(concert_id: int) -> tuple[str, ...]:
    """All keys of a concert's line, in the order of ``NAMES``."""
    return tuple(line_key(concert_id, name) for name in NAMES)
