"""What the environments know of each other's circuits: a hash in Redis, and a copy here for when Redis is away.

It has the methods of Powertools' ``CircuitBreakerPersistenceLayer`` and does not inherit from it: importing that class
imports boto3 for the DynamoDB layer beside it (80 ms of CPU at each cold start against 2 for the state machine).
Redis decides by its own clock, so the environments' clocks may differ. Here a moment is a ``time.monotonic()``.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools.utilities.circuit_breaker import CircuitInfo, CircuitState
from redis.exceptions import RedisError

from booking.platform.redis import Library, redis
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import count

_PROBE_S_MAX = 10.0
"""Longer than any probe lasts: then its environment has died, and another may try."""
_KEPT_S = 3600

LIBRARY = Library(
    "encore_circuits",
    read_text(__package__, "lua/circuit.lua"),
    {name: read_text(__package__, f"lua/{name}.lua") for name in ("look", "open", "claim_probe", "end_probe")},
)
_FUNCTIONS = LIBRARY.functions()
_LONG_AGO, _NEVER = 0, 2**40


@dataclass(frozen=True, slots=True)
class Seen:
    """A circuit as it was last seen. ``prober``: who asks the firm whether it is back, until ``probe_ends_s``."""

    is_closed: bool = True
    probe_from_s: float = 0.0
    prober: str = ""
    probe_ends_s: float = 0.0

    def may_be_probed(self) -> bool:
        """Whether it is time, and nobody else is at it."""
        return time.monotonic() >= (self.probe_ends_s if self.prober else self.probe_from_s)


class CircuitStore:
    """One for all circuits of the process; a circuit is named by its key."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._read_again_s: dict[str, float] = {}
        self._lock = threading.Lock()
        self._probing = threading.local()

    def seen(self, key: str) -> Seen:
        """The circuit, as old as ``circuit_read_every_s`` at most; while Redis is away, as this process knows it."""
        now_s = time.monotonic()
        if now_s >= self._read_again_s.get(key, 0.0):
            self._read_again_s[key] = now_s + settings().circuit_read_every_s  # the other threads need not read as well
            self._change("look", key, [], lambda seen: (seen, True))
        return self._seen.get(key, Seen())

    def forget(self) -> None:
        """Know nothing, as a new environment."""
        self._seen.clear()
        self._read_again_s.clear()

    # --- what Powertools' state machine calls -------------------------------------------------------------------

    def configure(self, config: object, circuit_name: str) -> None:
        """Nothing to keep: the settings have it all."""

    def get_state(self, name: str) -> "Record":
        """The circuit as the state machine reads it: it compares clocks, so it is given a past or a future moment."""
        seen = self.seen(name)
        if seen.is_closed:
            return Record(name, CircuitState.CLOSED)
        moment = _LONG_AGO if seen.may_be_probed() else _NEVER
        if seen.prober:
            return Record(name, CircuitState.HALF_OPEN, half_open_owner=seen.prober, probe_lease_expiry=moment)
        return Record(name, CircuitState.OPEN, opened_at=moment)

    def save_open(self, name: str, failure_count: int, opened_at: int) -> None:
        """Open the circuit for all, unless it is open already: a straggler's failure says nothing of the probe."""
        self._change("open", name, [_ms(settings().circuit_open_s), _ms(_KEPT_S)], _opened)

    def try_acquire_half_open(self, name: str, owner: str, opened_at: int) -> bool:
        """Become the one who probes, in all environments. Says whether that is so."""

        def claimed(seen: Seen) -> tuple[Seen, bool]:
            if seen.is_closed or not seen.may_be_probed():
                return seen, False
            return Seen(False, seen.probe_from_s, owner, time.monotonic() + _PROBE_S_MAX), True

        self._probing.owner = owner  # the state machine has an owner for each thread, and ends only what it has begun
        return self._change("claim_probe", name, [owner, _ms(_PROBE_S_MAX)], claimed)

    def save_closed(self, name: str) -> None:
        """The probe went well."""
        self._change("end_probe", name, [self._probing.owner, 0, _ms(_KEPT_S)], lambda _: (Seen(), True))

    def save_reopen(self, name: str, opened_at: int) -> None:
        """The probe failed: wait again."""
        args = [self._probing.owner, _ms(settings().circuit_open_s), _ms(_KEPT_S)]
        self._change("end_probe", name, args, lambda _: _opened(Seen()))

    # --------------------------------------------------------------------------------------------------------------

    def _change(self, function: str, key: str, args: list[Any], here: Callable[[Seen], tuple[Seen, bool]]) -> bool:
        """Do it in Redis, or in this process alone while Redis is away. Returns whether it has changed anything."""
        try:
            done, *found = _FUNCTIONS[function](redis("cache"), [key], args)
        except RedisError:
            count("GatewayCircuitsAway")
            with self._lock:
                self._seen[key], changed = here(self._seen.get(key, Seen()))
            return changed
        self._seen[key] = _read(found)
        return bool(done)


@dataclass(frozen=True, slots=True)
class Record:
    """What the state machine reads: the fields of Powertools' ``CircuitStateRecord``."""

    name: str
    state: CircuitState
    opened_at: int | None = None
    half_open_owner: str | None = None
    probe_lease_expiry: int | None = None

    def to_circuit_info(self) -> CircuitInfo:
        """What is told with the refusal."""
        return CircuitInfo(self.name, self.state, 0)


def _opened(seen: Seen) -> tuple[Seen, bool]:
    if not seen.is_closed:
        return seen, False
    return Seen(False, time.monotonic() + settings().circuit_open_s), True


def _read(found: list[Any]) -> Seen:
    is_open, probe_in_ms, prober, probe_left_ms = found
    if not is_open:
        return Seen()
    now_s = time.monotonic()
    return Seen(False, now_s + probe_in_ms / 1000, prober.decode(), now_s + probe_left_ms / 1000)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


STORE = CircuitStore()
