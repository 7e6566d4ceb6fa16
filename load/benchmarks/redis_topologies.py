"""What Redis costs as it is run for real: CPU a script call on each topology, and how long a failover takes.

The floor is the same packed call over redis-py's bare connection to the same server, one round after the other. A
failover is timed from ``kill -9`` of a master to the next write that the client gets through, which asks again every
50 ms; the killed server is started again (as a replica) before the next kill.
"""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from booking.platform.redis import Script, redis
from booking.platform.redis_client import KernelTimeout
from booking.platform.redis_keys import line_key, line_keys
from booking.platform.settings import settings
from encore_stack import redis_roles
from encore_stack.instance import FAILING_OVER, Instance
from encore_stack.ports import HOST
from encore_stack.process_settings import adopt_settings
from encore_stack.stack import Stack

TOPOLOGIES = ("single", *FAILING_OVER)
"""Those that differ in their client: `split` has three of `single`'s."""

_TURNS, _CALLS_A_TURN = 20, 500
_CONCERT_ID = 1
_ARGS = (1, 60, 600, 2_000, "a-person-of-22-letters", 0.123456)
_RETRY_S = 0.05
_CALM_S = 4.0
"""Between two kills: a sentinel that has just heard of a new master is not yet sure of it."""


@dataclass(frozen=True)
class CallCost:
    """CPU of a script call with the ten keys of a line, in microseconds, and how many times the floor's, by round."""

    cpu_us: Sequence[float]
    times_floor: Sequence[float]


@dataclass(frozen=True)
class Failovers:
    """Seconds from each kill to the next write; and the longest that one question took to be answered or refused."""

    back_s: Sequence[float]
    longest_ask_s: float


def measure_call_costs(rounds: int, tell: Callable[[str], None]) -> dict[str, CallCost]:
    """Of each topology, in ``rounds`` rounds after one to warm up."""
    costs = {}
    for topology in TOPOLOGIES:
        tell(f"script calls: {topology}")
        with _redis_run_as(topology) as stack:
            samples = [_cost_and_floor(stack) for _ in range(rounds + 1)][1:]
        costs[topology] = CallCost([own for own, _ in samples], [own / floor for own, floor in samples])
    return costs


def measure_failovers(kills: int, tell: Callable[[str], None]) -> dict[str, Failovers]:
    """Of each topology that has replicas."""
    failovers = {}
    for topology in FAILING_OVER:
        with _redis_run_as(topology) as stack:
            timed = []
            for nth in range(1, kills + 1):
                tell(f"failovers: {topology}, kill {nth} of {kills}")
                timed.append(_fail_over(stack))
                time.sleep(_CALM_S)
        failovers[topology] = Failovers([back for back, _ in timed], max(longest for _, longest in timed))
    return failovers


def as_markdown(costs: Mapping[str, CallCost], failovers: Mapping[str, Failovers]) -> str:
    """The tables of ``load/redis.md``."""
    rows = ["| a script call by the client of | CPU us | x floor | least-most |", "|---|---|---|---|"]
    for topology, cost in costs.items():
        least, most = min(cost.times_floor), max(cost.times_floor)
        median = statistics.median(cost.times_floor)
        rows.append(f"| {topology} | {statistics.median(cost.cpu_us):.1f} | {median:.2f} | {least:.2f}-{most:.2f} |")
    rows += ["", "| a master killed | kills | median s | least-most | longest answer s |", "|---|---|---|---|---|"]
    for topology, each in failovers.items():
        least, most = min(each.back_s), max(each.back_s)
        rows.append(
            f"| {topology} | {len(each.back_s)} | {statistics.median(each.back_s):.2f} | {least:.2f}-{most:.2f} |"
            f" {each.longest_ask_s:.2f} |"
        )
    return "\n".join(rows)


@contextmanager
def _redis_run_as(topology: str) -> Iterator[Stack]:
    """Redis alone, on an instance of its own, with this process's settings pointing to it."""
    name = f"bench-redis-{topology}"
    Stack(Instance.load(name)).down(wipe=True)  # what a run that was killed has left
    stack = Stack(Instance.load(name))
    stack.choose_redis(topology)
    try:
        stack.up(["redis"])
        adopt_settings(stack.instance)
        yield stack
    finally:
        stack.down(wipe=True)


def _cost_and_floor(stack: Stack) -> tuple[float, float]:
    """CPU microseconds of a call by the client, and of the same bytes over a bare connection to the same server."""
    script = Script("return redis.call('GET', KEYS[1])")
    client, keys = redis("queue"), line_keys(_CONCERT_ID)
    script(client, keys, _ARGS)
    master = redis_roles.master_of(stack.instance, keys[0])
    make: Any = KernelTimeout  # redis-py has no types for what a connection does
    connection = make(HOST, stack.instance.ports[master], socket_timeout=settings().redis_timeout_s)

    def floor() -> None:
        connection.send_packed_command([script.packed(keys, _ARGS)], check_health=False)
        connection.read_response()

    own_s = floor_s = 0.0
    for _ in range(_TURNS):  # by turns: what else the machine does in a round falls on both
        own_s += _cpu_s(lambda: script(client, keys, _ARGS))
        floor_s += _cpu_s(floor)
    connection.disconnect()
    calls = _TURNS * _CALLS_A_TURN
    return own_s / calls * 1e6, floor_s / calls * 1e6


def _cpu_s(call: Callable[[], object]) -> float:
    began_s = time.process_time()
    for _ in range(_CALLS_A_TURN):
        call()
    return time.process_time() - began_s


def _fail_over(stack: Stack) -> tuple[float, float]:
    """See ``Failovers``. The killed server is a replica afterwards."""
    key, client = line_key(_CONCERT_ID, "gate"), redis("queue")
    client.hincrby(key, "written", 1)
    lost = redis_roles.master_of(stack.instance, key)
    os.kill(stack.supervisor.processes()[lost].pid, signal.SIGKILL)
    killed_s, longest_s, written = time.monotonic(), 0.0, False
    while not written:
        asked_s = time.monotonic()
        try:
            client.hincrby(key, "written", 1)
            written = True
        except RedisError:
            pass
        longest_s = max(longest_s, time.monotonic() - asked_s)
        if not written:
            time.sleep(_RETRY_S)
    back_s = time.monotonic() - killed_s
    stack.start(lost)
    return back_s, longest_s
