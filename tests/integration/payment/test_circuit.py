"""A payment firm that does not answer is left in peace by all environments; one request finds out when it is back."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from booking.payment.gateways import Outcome, circuit_store
from booking.payment.gateways.circuit import Circuit
from booking.payment.gateways.circuit_store import CircuitStore
from booking.platform.redis import Library, redis
from booking.platform.redis_keys import circuit_key
from booking.platform.resources import read_text
from support.circuits import forget_circuits, forget_here, probe_is_due

KEY = circuit_key("danal", "charges")
FAILURES = 3
ENVIRONMENTS = 20


@pytest.fixture(autouse=True)
def known_circuits(use_settings: Callable[..., None]) -> Iterator[None]:
    use_settings(circuit_failures_max=FAILURES, circuit_open_s=3_600)
    forget_circuits()
    yield
    forget_circuits()


@pytest.fixture
def circuit() -> Circuit:
    return Circuit("danal", "charges")


class Firm:
    """Answers what it is told to, and counts how often it is asked."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes, self.asked = outcomes, 0

    def __call__(self) -> Outcome:
        self.asked += 1
        return self.outcomes[min(self.asked, len(self.outcomes)) - 1]


def fail(circuit: Circuit, times: int = FAILURES) -> None:
    for _ in range(times):
        circuit.guard(Firm(Outcome.UNKNOWN))


@pytest.mark.parametrize("outcome", [Outcome.UNKNOWN, Outcome.NOT_SENT])
def test_failures_in_a_row_open_it_and_then_nothing_is_sent(circuit: Circuit, outcome: Outcome) -> None:
    firm = Firm(outcome)
    assert [circuit.guard(firm) for _ in range(FAILURES)] == [outcome] * FAILURES
    assert circuit.refuses()
    assert circuit.guard(firm) is Outcome.NOT_SENT
    assert circuit.guard(firm, judged=False) is Outcome.NOT_SENT
    assert firm.asked == FAILURES


@pytest.mark.parametrize("outcome", [Outcome.DECLINED, Outcome.CAPTURED, Outcome.NEVER_SEEN])
def test_an_answer_begins_the_count_anew_also_a_decline(circuit: Circuit, outcome: Outcome) -> None:
    fail(circuit, FAILURES - 1)
    assert circuit.guard(Firm(outcome)) is outcome
    fail(circuit, FAILURES - 1)
    assert circuit.is_closed()


def test_who_is_in_a_hurry_says_nothing_of_the_firm(circuit: Circuit) -> None:
    for _ in range(2 * FAILURES):
        circuit.guard(Firm(Outcome.UNKNOWN), judged=False)
    assert circuit.is_closed()


def test_another_environment_finds_it_open(circuit: Circuit) -> None:
    fail(circuit)
    program = (
        "from booking.payment.gateways import choose, gateway; print(choose(), gateway('danal').lookups.is_closed())"
    )
    told = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True)

    assert told.stdout.split() == ["payco", "True"]


def claim_at_once() -> int:
    """How many of many environments become the one who probes."""
    together = Barrier(ENVIRONMENTS)

    def claim(number: int) -> bool:
        store = CircuitStore()
        assert not store.seen(KEY).is_closed
        together.wait()
        return store.try_acquire_half_open(KEY, f"environment {number}", 0)

    with ThreadPoolExecutor(ENVIRONMENTS) as crowd:
        return sum(crowd.map(claim, range(ENVIRONMENTS)))


def test_one_of_all_environments_probes(circuit: Circuit) -> None:
    fail(circuit)
    assert claim_at_once() == 0
    probe_is_due(KEY)
    assert claim_at_once() == 1


def test_without_its_guard_all_would_probe(circuit: Circuit, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = "if found[2] and found[2] ~= ARGV[1] and from_now(found[3]) > 0 then"
    claim = read_text(circuit_store.__package__, "lua/claim_probe.lua")
    assert guard in claim
    unguarded = Library(
        "encore_unguarded",
        read_text(circuit_store.__package__, "lua/circuit.lua"),
        {"claim_probe": claim.replace(guard, "if false then")},
    )
    monkeypatch.setitem(circuit_store._FUNCTIONS, "claim_probe", unguarded.functions()["claim_probe"])
    fail(circuit)
    probe_is_due(KEY)

    assert claim_at_once() > 1


def test_a_probe_that_is_answered_closes_it_for_all(circuit: Circuit) -> None:
    fail(circuit)
    probe_is_due(KEY)
    assert circuit.guard(Firm(Outcome.DECLINED)) is Outcome.DECLINED

    forget_here()
    assert circuit.is_closed()
    assert not redis("cache").exists(KEY)


def test_a_probe_that_fails_keeps_everybody_away_again(circuit: Circuit) -> None:
    fail(circuit)
    probe_is_due(KEY)
    assert circuit.guard(Firm(Outcome.UNKNOWN)) is Outcome.UNKNOWN

    forget_here()
    assert circuit.refuses()
    assert claim_at_once() == 0


def test_while_one_probes_the_others_are_refused(circuit: Circuit) -> None:
    fail(circuit)
    probe_is_due(KEY)
    others = Firm(Outcome.CAPTURED)

    def probe() -> Outcome:
        with ThreadPoolExecutor(1) as another_thread:
            assert another_thread.submit(circuit.guard, others).result() is Outcome.NOT_SENT
        return Outcome.CAPTURED

    assert circuit.guard(probe) is Outcome.CAPTURED
    assert others.asked == 0
    assert circuit.guard(others) is Outcome.CAPTURED


def test_another_probes_when_the_first_has_died(circuit: Circuit) -> None:
    fail(circuit)
    probe_is_due(KEY)
    dead = CircuitStore()
    assert dead.try_acquire_half_open(KEY, "dies", 0)
    redis("cache").hset(KEY, "probe_ends", 0)
    forget_here()

    assert circuit.guard(Firm(Outcome.CAPTURED)) is Outcome.CAPTURED
    dead.save_reopen(KEY, 0)  # it was not dead, only slow: it decides nothing any more
    forget_here()
    assert circuit.is_closed()


def test_it_works_in_one_environment_while_redis_is_away(
    circuit: Circuit, use_settings: Callable[..., Any], free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with use_settings(cache_redis_url=f"redis://127.0.0.1:{free_port()}/0"):
        fail(circuit)
        firm = Firm(Outcome.CAPTURED)
        assert circuit.guard(firm) is Outcome.NOT_SENT
        assert firm.asked == 0

        [seen] = circuit_store.STORE._seen.values()
        monkeypatch.setitem(circuit_store.STORE._seen, KEY, circuit_store.Seen(False, seen.probe_from_s - 3_600))
        assert circuit.guard(firm) is Outcome.CAPTURED
        assert circuit.is_closed()
