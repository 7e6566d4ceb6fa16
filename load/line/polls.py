"""How often a whole line polls: the line's own Lua tells people of each rank when to poll, on a clock that is reckoned.

Everybody joins within the first second, nobody leaves, and the line moves at the gate's rate. Of long lines a sample
is followed, each standing for so many: how often one polls depends on the rank alone.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import batched

from booking.platform.redis import redis
from booking.platform.redis_keys import line_keys
from booking.platform.resources import read_text
from booking.queue.line import common_arguments
from booking.queue.scripts import library

SIZES = (1_000, 10_000, 100_000, 300_000, 1_000_000)
JOINED_WITHIN_S = 1.0
_FOLLOWED_MAX = 20_000
_PER_CALL = 1_000
_BUCKET_S = 5

_POLL_TIMES = library({"poll_times": read_text("line", "poll_times.lua")}).functions()["poll_times"]


@dataclass(frozen=True)
class PollLoad:
    """What a line of ``waiting`` people costs in polls; ``late_s``: how long after the turn the pass was fetched."""

    waiting: int
    followed: int
    last_turn_s: float
    polls_per_s_max: float
    polls_per_s_mean: float
    polls_each_mean: float
    polls_each_max: int
    late_s_p99: float
    late_s_max: float


def poll_load(concert_id: int, waiting: int, rate_per_s: float) -> PollLoad:
    """Follow the people of a line, whose gate has this rate, until each has fetched the pass. Raises RedisError."""
    stands_for = -(-waiting // _FOLLOWED_MAX)
    ranks = range(0, waiting, stands_for)
    at_s = {rank: rank / waiting * JOINED_WITHIN_S for rank in ranks}
    per_bucket: Counter[int] = Counter()
    each: Counter[int] = Counter()
    late_s: list[float] = []
    here: Sequence[int] = [rank for rank in ranks if at_s[rank] < rank / rate_per_s]  # the others come in as they join
    while here:
        for rank, told_s in zip(here, _told_s(concert_id, waiting, rate_per_s, here, at_s), strict=True):
            at_s[rank] += told_s
            each[rank] += 1
            per_bucket[int(at_s[rank] / _BUCKET_S)] += stands_for
        late_s += [at_s[rank] - rank / rate_per_s for rank in here if at_s[rank] >= rank / rate_per_s]
        here = [rank for rank in here if at_s[rank] < rank / rate_per_s]
    late_s.sort()
    polls = sum(per_bucket.values())
    return PollLoad(
        waiting=waiting,
        followed=len(ranks),
        last_turn_s=waiting / rate_per_s,
        polls_per_s_max=max(per_bucket.values()) / _BUCKET_S,
        polls_per_s_mean=polls / (waiting / rate_per_s),
        polls_each_mean=polls / waiting,
        polls_each_max=max(each.values()),
        late_s_p99=late_s[len(late_s) * 99 // 100],
        late_s_max=late_s[-1],
    )


def _told_s(
    concert_id: int, waiting: int, rate_per_s: float, ranks: Sequence[int], at_s: dict[int, float]
) -> list[float]:
    """When each of them is told to poll again, in seconds from now, which is a moment of each one's own."""
    client, keys, told = redis("queue"), line_keys(concert_id), list[float]()
    for some in batched(ranks, _PER_CALL, strict=False):
        arguments: list[str | float] = [*common_arguments(concert_id)]
        for rank in some:
            gone = int(at_s[rank] * rate_per_s)
            arguments += [rank - gone, waiting - gone, random.random()]
        told += [int(ms) / 1000 for ms in _POLL_TIMES(client, keys, arguments)]
    return told
