"""The outbox's measurements one after the other, as text for ``load/outbox.md``."""

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from benchmarks.report import markdown_table
from benchmarks.tools import ToolError
from booking.platform.loops import run_loop
from booking.platform.postgres import Server, primary
from booking.platform.settings import settings
from booking.tickets.outbox import backlog
from booking.tickets.relay import Relay
from encore_stack.stack import Stack
from outbox.stage import Cost, Stage

PAYMENTS_PER_S = 100
_PACED_S = 40.0
_PACED_CLIENTS = 8
_CLIENTS = 4
_COLD_PRODUCERS, _WARM_SENDS = 40, 2_000
_KILLED = 25
_DRAIN_S_MAX = 60.0
_SETTLE = "select settle_payment(cast(:id as uuid), 'danal', 'captured', null, 60, 'bench')::text"


def measure_outbox(rounds: int, duration_s: float, tell: Callable[[str], None]) -> str:
    """All of it, as Markdown. Raises ToolError, and what starting the servers raises."""
    stage = Stage(tell)
    return "\n\n".join(
        [
            _commit_to_broker(stage, tell),
            _load_of_the_outbox(stage, rounds, duration_s, tell),
            _direct_produce(stage, tell),
            _killed_in_between(stage, tell),
        ]
    )


# --- commit to broker -------------------------------------------------------------------------------------------------


def _commit_to_broker(stage: Stage, tell: Callable[[str], None]) -> str:
    tell(f"{PAYMENTS_PER_S} payments a second for {_PACED_S:g} s through the relay")
    run_s = _PACED_S + 3
    loop = threading.Thread(target=_lead, args=(run_s,))
    loop.start()
    time.sleep(1)  # it leads and has its producer: what a stack in use has
    since = time.time()
    rate = stage.book(_PACED_CLIENTS, _PACED_S, PAYMENTS_PER_S)
    loop.join()
    delays = stage.delays_s(since)
    if backlog(primary()).count:
        raise ToolError("the relay has left events behind")
    shown = [f"{1_000 * _quantile(delays, q):,.0f}" for q in (0.5, 0.95, 0.99, 1.0)]
    return (
        f"Commit to broker, {rate:,.0f} payments a second ({len(delays):,} events in {_PACED_S:g} s), ms:\n\n"
        + markdown_table(["events", "p50", "p95", "p99", "most"], [[f"{len(delays):,}", *shown]])
    )


def _lead(run_s: float) -> None:
    with Relay() as relay:
        run_loop("relay_outbox", 0.1, relay.tick, run_s=run_s)


# --- with and without -------------------------------------------------------------------------------------------------


def _load_of_the_outbox(stage: Stage, rounds: int, duration_s: float, tell: Callable[[str], None]) -> str:
    figures: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    relayed: list[tuple[float, float, float, float]] = []
    for nth in range(rounds):
        tell(f"bookings with and without the outbox, round {nth + 1} of {rounds}")
        for outbox in (True, False) if nth % 2 else (False, True):
            (stage.with_outbox if outbox else stage.without_outbox)()
            before = stage.cost()
            per_s = stage.book(_CLIENTS, duration_s)
            spent = stage.cost() - before
            booked = per_s * duration_s
            figures[outbox].append((_CLIENTS / per_s * 1e3, spent.wal_bytes / booked, spent.cpu_s / booked * 1e6))
            if outbox:
                relayed.append(_drain(stage))
    stage.with_outbox()
    rows = [
        [name, *(f"{_median(figures[outbox], column):,.{digits}f}" for column, digits in ((0, 2), (1, 0), (2, 0)))]
        for outbox, name in ((False, "without an outbox"), (True, "with the outbox"))
    ]
    of_the_relay = [f"{_median(relayed, column):,.0f}" for column in (0, 1)]
    rows.append(["and the relay, for its two events", "", *of_the_relay])
    return (
        f"A booking (hold, payment begun and settled; two events), {_CLIENTS} clients, medians of {rounds} rounds of"
        f" {duration_s:g} s in turns:\n\n"
        + markdown_table(["", "three statements, ms", "WAL, bytes", "Postgres CPU, us"], rows)
        + f"\n\nThe relay drained {_median(relayed, 3):,.0f} events a second and took"
        f" {_median(relayed, 2):,.0f} us of its own CPU for each."
    )


def _drain(stage: Stage) -> tuple[float, float, float, float]:
    """WAL bytes and CPU (us) of Postgres for two events, the relay's own CPU (us) for one, events a second."""
    before, cpu_s, started_s = stage.cost(), time.process_time(), time.monotonic()
    events = 0
    with Relay() as relay:
        while published := relay.publish_batch():
            events += published
            if time.monotonic() - started_s > _DRAIN_S_MAX:
                raise ToolError("the backlog does not come to an end")
    took_s, own_s = time.monotonic() - started_s, time.process_time() - cpu_s
    spent: Cost = stage.cost() - before
    return (
        2 * spent.wal_bytes / events,
        2 * spent.cpu_s / events * 1e6,
        own_s / events * 1e6,
        events / took_s,
    )


# --- direct produce ---------------------------------------------------------------------------------------------------


def _direct_produce(stage: Stage, tell: Callable[[str], None]) -> str:
    tell("producing from the request itself")
    cold, warm = asyncio.run(_produce(stage))
    import_ms = _import_ms()
    tell("the same while the broker is away")
    supervisor = Stack(stage.instance).supervisor
    supervisor.stop_part("kafka")
    try:
        away_s, away_fault = asyncio.run(_produce_without_broker(stage))
    finally:
        Stack(stage.instance).up(("kafka",))
    rows = [
        ["import of the client, CPU", f"{import_ms:,.0f}", ""],
        ["a new environment's first event (connect, producer id, send)", *_p50_p99(cold)],
        ["an event over a kept producer", *_p50_p99(warm)],
        [f"an event while the broker is away (then {away_fault})", f"{1_000 * away_s:,.0f}", ""],
    ]
    return "Producing from the request, ms:\n\n" + markdown_table(["", "p50", "p99"], rows)


async def _produce(stage: Stage) -> tuple[list[float], list[float]]:
    cold, warm = [], []
    for _ in range(_COLD_PRODUCERS):
        started_s = time.monotonic()
        producer = _producer()
        await producer.start()
        await producer.send_and_wait(stage.topic, b"{}", b"key")
        cold.append(time.monotonic() - started_s)
        await producer.stop()
    async with _producer() as producer:
        for _ in range(_WARM_SENDS):
            started_s = time.monotonic()
            await producer.send_and_wait(stage.topic, b"{}", b"key")
            warm.append(time.monotonic() - started_s)
    return sorted(cold), sorted(warm)


async def _produce_without_broker(stage: Stage) -> tuple[float, str]:
    started_s = time.monotonic()
    producer = _producer()
    try:
        await producer.start()
        await producer.send_and_wait(stage.topic, b"{}", b"key")
    except KafkaError as fault:
        return time.monotonic() - started_s, type(fault).__name__
    finally:
        await producer.stop()
    raise ToolError("the broker is away and took an event all the same")


def _producer() -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=settings().kafka_bootstrap_servers, acks="all", enable_idempotence=True)


def _import_ms() -> float:
    program = "import time; s = time.process_time(); import aiokafka; print(time.process_time() - s)"
    taken = [subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in range(5)]
    return min(map(float, taken)) * 1_000


# --- killed between commit and publish --------------------------------------------------------------------------------


def _killed_in_between(stage: Stage, tell: Callable[[str], None]) -> str:
    rows = []
    for outbox in (False, True):
        tell(f"{_KILLED} processes killed between commit and publish, {'with' if outbox else 'without'} the outbox")
        payments = _begun_payments(stage)
        (stage.with_outbox if outbox else stage.without_outbox)()
        for payment_id in payments:
            _settle_and_die(payment_id)
        stage.with_outbox()
        confirmed = primary().value(
            "select count(*) from payment where id = any (cast(:ids as uuid[])) and status = 'captured'", ids=payments
        )
        with Relay() as relay:
            published = relay.publish_batch()
        rows.append(["with the outbox" if outbox else "produced after the commit", f"{confirmed}", f"{published}"])
    return (
        f"{_KILLED} processes killed (SIGKILL) after the commit of a payment and before publishing:\n\n"
        + markdown_table(["", "payments committed", "events in Kafka"], rows)
    )


def _begun_payments(stage: Stage) -> list[str]:
    """Payments under way, each a signature of the firm away from being settled; their earlier events are published."""
    book = (
        "select begin_payment(s.person, 'pay', 'hash', s.concert_id, (hold_seats(s.person, 'key', 'hash', s.concert_id,"
        " s.pass_id, s.schedule_id, array[s.number], 300, 900, 'bench') -> 'answer' ->> 'reservation_id')::uuid,"
        " 'danal', 'card', 120) -> 'payment' ->> 'payment_id'"
        f" from (select nextval('bench_seat') as n from generate_series(1, {_KILLED})) next, bench_seat_at(next.n) s"
    )
    payments = [str(payment_id) for [payment_id] in stage.run(book)]
    with Relay() as relay:
        relay.publish_batch()
    return payments


def _settle_and_die(payment_id: str) -> None:
    """A process of its own commits the payment, and is gone before it could publish anything."""
    pid = os.fork()
    if pid == 0:
        Server(settings().database_url).rows(_SETTLE, id=payment_id)  # a connection is not shared with a child
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


# --- as text ----------------------------------------------------------------------------------------------------------


def _quantile(ordered: Sequence[float], q: float) -> float:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def _p50_p99(ordered: Sequence[float]) -> list[str]:
    return [f"{1_000 * _quantile(ordered, q):,.1f}" for q in (0.5, 0.99)]


def _median(figures: Sequence[Sequence[float]], column: int) -> float:
    return statistics.median(figure[column] for figure in figures)
