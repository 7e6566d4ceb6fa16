"""Every Redis key there is, with its hash tag.

All keys that one script touches carry the same hash tag, the part in braces: so it runs on one node of a Redis Cluster.
A hot concert is therefore one slot; its schedules' locks and maps lie in others. A person is the 22 characters of
``people.person_of``. A place is a whole number of microseconds, an expiry or a deadline a Unix time in microseconds.

``line:{c<concert id>}:<name>``, at the endpoint ``queue``. Without them the line is restored from Postgres and from the
tokens of its people. They expire 7 days after the background loop told the line its settings for the last time: a
day after the end of the sale.

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

``seatlocks:{s<schedule id>}:<name>``, at the endpoint ``locks``. Without them every sale is still exact, only dearer.
An owner is ``<person>.<attempt>``. The last two are the lock history: nobody writes them who gets the locks at once.

============== ====== ==============================================================================================
<seat number>  STRING ``<number> <owner>``: the attempt that is buying this seat just now, and the number of its
                      locks; expires after ``seat_lock_ttl_ms``
count          STRING number of the schedule's last lock; expires after 24 h, the next begins at the clock
held:<owner>   STRING this attempt has its seats (held) or may have them (asked): its retries go past the locks; expires
                      after 24 h
waits          STREAM the last 100 waits for a seat that ended (seat, ended: got or refused, waited_ms, waiter: an
                      owner, lock: the one waited for) and locks that ran out (seat, ended: expired, lock); expires
                      24 h after the last
contended      HASH   seat number → ``<waits> <refused> <all waits, ms> <longest, ms> <locks that ran out> <number of
                      the last of these>``, of at most 1,000 seats; expires 24 h after the last
============== ====== ==============================================================================================

``seatmap:{s<schedule id>}:<name>``, at the endpoint ``cache``. Without them Postgres answers.

========== ====== ==================================================================================================
map        STRING ``<made> <moved> <concert id> <ETag> <body>`` of the schedule's seat map, the first two as its reader
                  found them in the marker; expires within 30 s
versions   HASH   the marker: seat number → version that a map must show at least; and made, moved (by every change: a
                  map that was read before is not stored), whole (every change that was told is in it: a replica may be
                  asked), uncached (operators send the readers to the database: the map is not kept); expires 10
                  minutes after the last change or refill
overtaken  STRING the map as it was before the last changes, for who came before it was read; expires within 2 s
reader     STRING the reader who is fetching the map from Postgres; expires after 1 s
========== ====== ==================================================================================================

``catalog:{c<concert id>}:<name>``, at the endpoint ``cache``. Without them Postgres answers.

========== ====== ==================================================================================================
schedules  STRING ``<ids> <answer>``: the schedules, with %s for each number of seats; expires at the venue's midnight.
                  ``-``: operators send the readers to the database; expires after 10 minutes unless said again
seats_left STRING ``<ids> <numbers>``: seats in all and seats left of each of them; expires after 2 s
reader     STRING the reader who is fetching either from Postgres; expires after 3 s
========== ====== ==================================================================================================

``gateway:{<payment firm>}:<name>``, at the endpoint ``cache``. Without them each environment finds out by itself that a
firm is down.

========== ====== ==================================================================================================
charges    HASH   probe_from, prober, probe_ends (``payment/gateways/lua/circuit.lua``): there while the circuit
                  breaker keeps charges away from the firm; expires an hour after the last change
lookups    HASH   the same for questions and cancellations
========== ====== ==================================================================================================

``events:{<consumer>}:<name>``, at the endpoint ``cache``. Without them a record that kills its consumer holds up its
partition until they are counted again.

========== ====== ==================================================================================================
unended    HASH   ``<topic>-<partition>/<offset>`` → how often a batch was begun there and has not ended, and with
                  `` alone`` behind it, how often that one record; expires 24 h after the last began
========== ====== ==================================================================================================
"""

from functools import lru_cache

LINE_NAMES = (
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
    """The key ``name`` (one of ``LINE_NAMES``) of a concert's line."""
    return f"line:{{c{concert_id}}}:{name}"


@lru_cache(maxsize=1024)
def line_keys(concert_id: int) -> tuple[str, ...]:
    """All keys of a concert's line, in the order of ``LINE_NAMES``."""
    return tuple(line_key(concert_id, name) for name in LINE_NAMES)


def seat_lock_key(schedule_id: int, name: str) -> str:
    """The key ``name`` (a seat's number, or one of the names above) of a schedule's locks."""
    return f"seatlocks:{{s{schedule_id}}}:{name}"


def schedules_keys(concert_id: int) -> list[str]:
    """Schedules, seats left, the reader's lock."""
    return [f"catalog:{{c{concert_id}}}:{name}" for name in ("schedules", "seats_left", "reader")]


def circuit_key(gateway: str, operation: str) -> str:
    """The circuit breaker of an operation (charges, lookups) of a payment firm."""
    return f"gateway:{{{gateway}}}:{operation}"


def unended_key(consumer: str) -> str:
    """The batches that a consumer of the events has begun and not ended."""
    return f"events:{{{consumer}}}:unended"


def seat_lock_names(key: str) -> tuple[int, str]:
    """The schedule and the name in a key of a schedule's locks."""
    _, schedule, name = key.split(":", 2)
    return int(schedule[2:-1]), name


def seat_map_keys(schedule_id: int) -> list[str]:
    """Map, marker, the map as it was before the last changes, the reader's lock."""
    return [f"seatmap:{{s{schedule_id}}}:{name}" for name in ("map", "versions", "overtaken", "reader")]
