"""What an operator would look at while something is broken, twice a second: payments in doubt, events on their way, the
circuit breakers of the payment firms."""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from booking.platform.redis import redis
from booking.platform.redis_keys import circuit_key
from booking.platform.resources import read_text
from encore_stack.instance import Instance
from encore_stack.parts import Unhealthy
from encore_stack.parts.postgres import connected

_EVERY_S = 0.5
_ANSWER_S = 4.0
"""A payment that is open for longer has no buyer any more who waits for the answer of step 7."""
_WATCH = read_text("drills.harness", "sql/watch.sql")

PENDING, OUTBOX, OUTBOX_AGE = "payments pending", "events not in Kafka", "oldest of them, s"
LAG = "events not consumed"
"""The last: of all consumers together; with ``: `` and a function's name: its own."""
FIRMS, OPERATIONS = ("danal", "payco"), ("charges", "lookups")
CLOSED, HALF_OPEN, OPEN = 0.0, 0.5, 1.0
"""How a circuit stands; half open: one request tries whether the firm is back."""


def circuit(firm: str, operation: str) -> str:
    """The name under which a circuit is watched."""
    return f"circuit {firm} {operation}"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at a moment of the drill's clock, by name; what could not be asked is left out."""

    at_s: float
    values: Mapping[str, float]


async def watch(instance: Instance, clock: Callable[[], float], samples: list[Sample]) -> None:
    """Append a sample twice a second until cancelled."""
    while True:
        began_s = clock()
        seen = await asyncio.to_thread(look, instance)
        samples.append(Sample(clock(), seen))  # at the latest then: a recovery is never told too early
        await asyncio.sleep(max(0.05, began_s + _EVERY_S - clock()))


def look(instance: Instance) -> dict[str, float]:
    """One look; never raises for a part that is away."""
    seen: dict[str, float] = {}
    with suppress(Unhealthy), connected(instance, instance.postgres_primary) as connection:
        pending, outbox, age_s = connection.run(_WATCH, answer_s=_ANSWER_S)[0]
        seen |= {PENDING: float(pending), OUTBOX: float(outbox), OUTBOX_AGE: float(age_s)}
    with suppress(OSError, ValueError, KeyError):
        lags = consumer_lags(instance)
        seen |= {f"{LAG}: {function}": float(lag) for function, lag in lags.items()}
        seen[LAG] = float(sum(lags.values()))
    with suppress(RedisError):
        seen |= {circuit(firm, operation): _state(firm, operation) for firm in FIRMS for operation in OPERATIONS}
    return seen


def _state(firm: str, operation: str) -> float:
    """A circuit as all environments share it, read without what a process keeps of it. Raises RedisError."""
    probe_from, prober = redis("cache").hmget(circuit_key(firm, operation), ("probe_from", "prober"))
    if probe_from is None:
        return CLOSED
    return HALF_OPEN if prober else OPEN


def consumer_lags(instance: Instance) -> dict[str, int]:
    """How many events each consumer has not done, by its function, as the poller last said.

    Raises OSError, ValueError, KeyError where it has not. A consumer without a connection to Kafka is left out.
    """
    heartbeat = json.loads((instance.run_dir / "poller.json").read_text())
    mappings = heartbeat["mappings"]
    return {one["function"].partition("-")[2]: one["lag"] for one in mappings if one["lag"] is not None}
