"""How many people a second can join one concert's line, and what bounds it: the script, the handler, the whole way."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from benchmarks import cpu, tools
from benchmarks.gateway import StepsAndFloors
from benchmarks.requests import JSON, Request, join, poll
from benchmarks.run import own_gateway
from benchmarks.stage import LINE_CONCERT_ID, Stage
from booking.platform.redis import redis
from booking.platform.redis_keys import line_key, line_keys
from booking.queue.line import common_arguments
from booking.queue.scripts import script

CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
RUSH_CONCERT_ID = 3
"""Its line is empty when the rush begins."""
RUSH_PEOPLE = 100_000
_RUSH_CONNECTIONS = 64
_RUSH_WITHIN_S = 60.0
_SCRIPT_CALLS = 40_000
_HANDLER_CALLS = 500
_JOINS_PER_S_MAX = 20_000


@dataclass(frozen=True)
class Ceiling:
    """Joins a second over so many connections: of the bare script, and of the whole way through the fast gateway."""

    connections: int
    script_per_s: float
    http_per_s: float


@dataclass(frozen=True)
class Rush:
    """``people`` distinct people who join one line at once: from the first place given out to the last."""

    people: int
    took_s: float
    redis_mb: float
    """What Redis needs for them, in 10^6 bytes."""


def handler_per_s(stage: Stage) -> float:
    """Joins a second of CPU of one process, Redis' time left out."""
    requests = cycle(join(stage, _HANDLER_CALLS))
    return 1e6 / cpu.cost_us(StepsAndFloors(), requests, _HANDLER_CALLS)


def ceilings(stage: Stage, base_url: str, duration_s: float, tell: Callable[[str], None]) -> Iterator[Ceiling]:
    """One for each number of connections. Raises ToolError."""
    lua, port = script("join"), stage.instance.ports["redis"]
    lua.load(redis("queue"), line_key(LINE_CONCERT_ID, "gate"))
    words = [*line_keys(LINE_CONCERT_ID), *common_arguments(LINE_CONCERT_ID), "b__rand_int__", 0.5]
    for connections in CONNECTIONS:
        tell(f"joins over {connections} connections")
        script_per_s = tools.redis_benchmark(port, connections, _SCRIPT_CALLS, [lua.command, lua.name, 10, *words])
        yield Ceiling(connections, script_per_s, joins_per_s(stage, base_url, connections, duration_s))


def joins_per_s(stage: Stage, base_url: str, connections: int, duration_s: float) -> float:
    """Joins a second through the gateway, each of somebody new. Raises ToolError."""
    requests = [request.raw() for request in join(stage, round(_JOINS_PER_S_MAX * duration_s))]
    return tools.wrk(base_url, requests, connections, duration_s, once=True)


def polls_per_s(stage: Stage, base_url: str, connections: int, duration_s: float) -> float:
    """Polls a second through the gateway, of people who wait. Raises ToolError."""
    return tools.wrk(base_url, [request.raw() for request in poll(stage, 0)], connections, duration_s)


def first_second(stage: Stage, tell: Callable[[str], None]) -> tuple[float, float]:
    """Joins in the first second of a gateway that has just started, and polls in that of another. Raises ToolError."""
    rates = []
    for what in (joins_per_s, polls_per_s):
        with own_gateway(stage, tell) as base_url:
            rates.append(what(stage, base_url, 32, 1.0))
    return rates[0], rates[1]


def rush(stage: Stage, base_url: str) -> Rush:
    """A hundred thousand people at once. Raises ToolError when one of them was refused or got no place of their own."""
    client = redis("queue")
    client.delete(*line_keys(RUSH_CONCERT_ID))
    requests = [_join(user_id) for user_id in stage.new_user_ids(RUSH_PEOPLE)]
    before = _used_bytes()
    tools.wrk_all(base_url, requests, _RUSH_CONNECTIONS, _RUSH_WITHIN_S)
    used = _used_bytes() - before
    places = _places()
    if len(places) != RUSH_PEOPLE or len(set(places)) != RUSH_PEOPLE:
        raise tools.ToolError(f"{RUSH_PEOPLE:,} people have {len(set(places)):,} places")
    return Rush(RUSH_PEOPLE, (max(places) - min(places)) / 1e6, used / 1e6)


def _join(user_id: str) -> bytes:
    body = json.dumps({"concert_id": RUSH_CONCERT_ID, "user_id": user_id}).encode()
    return Request("POST", "/queue/tokens", JSON, body).raw()


def _places() -> list[int]:
    """Of all who wait or are inside, in microseconds."""
    client: Any = redis("queue")  # redis-py's types leave open what comes back
    waiting = client.zrange(line_key(RUSH_CONCERT_ID, "waiting"), 0, -1, withscores=True)
    inside = client.hgetall(line_key(RUSH_CONCERT_ID, "passes"))
    return [*(int(place) for _, place in waiting), *(int(detail.split()[2]) for detail in inside.values())]


def _used_bytes() -> int:
    return int(redis("queue").info("memory")["used_memory"])
