"""Configuration, read once from the environment into one frozen object that reports all its faults together."""

import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, Literal, cast

from booking.platform.postgres_urls import parse_database_url
from booking.platform.redis_urls import parse_redis_url

PREFIX = "ENCORE_"
EdgeTrust = Literal["open", "api_key", "authorizer"]


class SettingsError(RuntimeError):
    """The environment lacks settings or holds unusable ones; the message lists every fault."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of the bundle. The environment variable of a field is ``ENCORE_`` and its name in capitals.

    Fields without a default must be given. Times end in their unit.
    """

    database_url: str
    """Postgres that takes writes: one host that stands for it, or a primary and its standbys (``postgres_urls``)."""
    replica_url: str
    """Postgres for reads that may be a moment old, in the same form; of several hosts a standby is preferred."""
    queue_redis_url: str
    """Redis of the waiting line; the schemes are in ``redis_urls``, also for the next two."""
    locks_redis_url: str
    cache_redis_url: str
    token_keys: str
    """Signing keys as ``kid:hex,kid:hex``; the first signs, all verify (rotation throws nobody out)."""
    person_secret: str
    """Hex key of the hash that stands for a ``user_id`` wherever a person is a key or a field."""
    danal_url: str
    payco_url: str
    kafka_bootstrap_servers: str
    reservation_topic: str = "reservation-events"
    dead_letter_topic: str = "reservation-events.dead-letter"
    edge_trust: EdgeTrust = "authorizer"
    """Who says ``user_id``; the safe answer is the default, ``open`` must be asked for."""

    statement_timeout_ms: int = 3_000
    lock_timeout_ms: int = 2_000
    connect_timeout_s: float = 2.0
    long_lock_s_max: float = 5.0
    """A transaction older than this that sits on seats is ended: longer than any statement of our own may take."""
    redis_timeout_s: float = 1.0
    """A server that let a command time out is not asked for a second: a request waits for it about once."""

    token_ttl_s: int = 7 * 24 * 3600
    pass_ttl_s: int = 600
    claim_window_s: int = 60
    rebuild_hold_s: int = 15
    polls_per_s_max: int = 2_000

    hold_ttl_s: int = 300
    hold_cap_s: int = 900
    hold_after_decline_s: int = 60
    seat_lock_ttl_ms: int = 3_000
    seat_lock_wait_ms_max: int = 1_000

    payment_deadline_s: int = 120
    payment_answer_s_max: float = 3.0
    """Step 7 answers within so long, whatever the payment firms do: connecting, reading, trying again, turning to the
    other firm. What is open then is 202."""
    payment_turn_s_min: int = 30
    """A payment turns to the other firm only while its hold may last so long: less would end in doubt once more."""
    gateway_tries_max: int = 3
    gateway_connect_timeout_s: float = 1.0
    gateway_read_timeout_s: float = 2.5
    gateway_glance_timeout_s: float = 0.4
    """For who only looks at or gives back a reservation: a slow payment firm must not slow the step that reserves."""
    payment_check_backoff_s_max: int = 15
    circuit_failures_max: int = 5
    """So many failures in a row in one environment keep all of them away from a payment firm for ``circuit_open_s``."""
    circuit_open_s: int = 5
    circuit_read_every_s: float = 2.0

    outbox_kept_s: int = 24 * 3600
    """How long a published event stays in the outbox; the audit looks at as much."""
    inbox_kept_s: int = 15 * 24 * 3600
    """How long a consumer knows that it has applied an event: longer than a topic can bring it again. Kafka keeps a
    record for its retention (7 days by default) after its segment was closed, which takes as long again at most."""

    event_attempts_max: int = 5
    """After so many attempts a record that a consumer cannot apply is set aside as a dead letter."""
    dead_letter_redrive_backoff_s: float = 10.0
    """When a transient one is sent back by itself for the first time; then after twice as long each time."""
    dead_letter_redrives_max: int = 8
    dead_letters_per_redrive: int = 100
    notices_url: str = ""
    """Where people are told: an SNS topic's ARN, or a folder as ``file:///…``."""

    loop_run_s: int = 65
    """How long one run of a background loop lasts: a little over a minute, so that the next run stands by."""


_DATABASE_URLS = ("database_url", "replica_url")
_REDIS_URLS = ("queue_redis_url", "locks_redis_url", "cache_redis_url")
_CHOICES: dict[str, tuple[str, ...]] = {"edge_trust": ("open", "api_key", "authorizer")}


def load_settings(environment: Mapping[str, str]) -> Settings:
    """Build the settings from ``environment``.

    Raises SettingsError naming every missing or malformed variable at once, so that a deployment is mended in one go.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for field in fields(Settings):
        variable = PREFIX + field.name.upper()
        text = environment.get(variable)
        if text is None or text == "":
            if field.default is MISSING:
                faults.append(f"{variable} is not set")
            continue
        try:
            values[field.name] = _parse(field.name, cast(Callable[[str], Any], field.type), text)
        except ValueError as fault:
            faults.append(f"{variable}: {fault}")
    if faults:
        raise SettingsError("unusable settings: " + "; ".join(faults))
    return Settings(**values)


def _parse(name: str, kind: Callable[[str], Any], text: str) -> Any:
    if name in _CHOICES:
        if text not in _CHOICES[name]:
            raise ValueError(f"must be one of {', '.join(_CHOICES[name])}")
        return text
    if name in _REDIS_URLS:
        parse_redis_url(text)
    if name in _DATABASE_URLS:
        parse_database_url(text)
    if kind in (int, float):
        number = kind(text)
        if number <= 0:
            raise ValueError("must be greater than zero")
        return number
    return text


@cache
def settings() -> Settings:
    """The settings of this process. Raises SettingsError when the environment is unusable."""
    return load_settings(os.environ)
