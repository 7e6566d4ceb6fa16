"""The Kafka event source against a scripted consumer and function: batches, order, retries, commits."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord

from event_source import lag, msk, partition
from event_source.invoker import FunctionFailed, InvokeFailed, Invoker, Throttled, Unreachable
from event_source.poller import Poller
from event_source.settings import BadSettings, Settings, read_settings
from event_source.settings import Mapping as SourceMapping

TOPIC = "reservation-events"
type Answer = Callable[[dict[str, Any]], Awaitable[Any]]


@dataclass
class Rec:
    partition: int
    offset: int
    value: bytes | None = b"{}"
    key: bytes | None = b"r-1"
    headers: Sequence[tuple[str, bytes]] = ()
    topic: str = TOPIC
    timestamp: int = 1_795_000_000_000
    timestamp_type: int = 0


@dataclass
class FakeConsumer:
    """Hands out what is produced, and remembers what is committed."""

    partitions: int = 3
    committed: dict[int, int] = field(default_factory=dict)
    commit_error: Exception | None = None
    silent_s: float = 0.0
    listener: Any = None
    _paused: set[TopicPartition] = field(default_factory=set)
    _fetched: asyncio.Queue[Rec] = field(default_factory=asyncio.Queue)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def produce(self, *records: Rec) -> None:
        for record in records:
            self._fetched.put_nowait(record)

    def keys(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, n) for n in range(self.partitions)]

    def subscribe(self, topics: Iterable[str], *, listener: ConsumerRebalanceListener) -> None:
        self.listener = listener

    async def getmany(self, *, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Rec]]:
        if not self.listener.snapshot()["partitions"]:
            await self.listener.on_partitions_assigned(self.keys())
        out: dict[TopicPartition, list[Rec]] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                record = await self._fetched.get()
                out.setdefault(TopicPartition(TOPIC, record.partition), []).append(record)
        while not self._fetched.empty():
            record = self._fetched.get_nowait()
            out.setdefault(TopicPartition(TOPIC, record.partition), []).append(record)
        return out

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self.commit_error:
            raise self.commit_error
        async with self.changed:
            self.committed |= {key.partition: offset for key, offset in offsets.items()}
            self.changed.notify_all()

    async def has_committed(self, **offsets: int) -> None:
        """Wait until partition pN is committed at the given offset."""
        want = {int(name[1:]): offset for name, offset in offsets.items()}
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: want.items() <= self.committed.items()), 5)

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self._paused -= set(partitions)

    def paused(self) -> set[TopicPartition]:
        return self._paused

    def highwater(self, partition: TopicPartition) -> int | None:
        return None

    def last_poll_timestamp(self, partition: TopicPartition) -> int | None:
        return int((time.time() - self.silent_s) * 1000)


class FakeFunction:
    """Remembers what it was sent; `answer` decides."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self.answer = answer
        self.running = 0
        self.running_max = 0

    async def invoke(self, event: dict[str, Any]) -> Any:
        self.events.append(event)
        self.running += 1
        self.running_max = max(self.running, self.running_max)
        try:
            return await self.answer(event) if self.answer else None
        finally:
            self.running -= 1

    def sent(self) -> list[tuple[int, int]]:
        return [(r["partition"], r["offset"]) for event in self.events for rs in event["records"].values() for r in rs]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "RETRY_S_MIN", 0.01)


def with_poller(
    scenario: Callable[[FakeConsumer, FakeFunction, Poller], Coroutine[Any, Any, None]],
    answer: Answer | None = None,
    **settings: Any,
) -> FakeFunction:
    """Run `scenario` beside a poller, then stop the poller as SIGTERM does."""
    function = FakeFunction(answer)

    async def run() -> None:
        consumer = FakeConsumer()
        mapping = SourceMapping("encore-f", (TOPIC,), "g", **({"batching_window_s": 0.0} | settings))
        poller = Poller(mapping, consumer, function, "arn:aws:kafka:x", "127.0.0.1:9092")
        task = asyncio.create_task(poller.run())
        try:
            await scenario(consumer, function, poller)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())
    return function


def offsets_of(event: dict[str, Any], number: int) -> list[int]:
    return [r["offset"] for r in event["records"].get(f"{TOPIC}-{number}", [])]


def failing(*bad: tuple[int, int], times: int = 10**6) -> Answer:
    """A function that reports these (partition, offset) as failed, `times` times."""
    left = dict.fromkeys(bad, times)

    async def answer(event: dict[str, Any]) -> Any:
        failures = []
        for records in event["records"].values():
            for record in records:
                key = (record["partition"], record["offset"])
                if left.get(key, 0) > 0:
                    left[key] -= 1
                    identifier = {"partition": f"{TOPIC}-{key[0]}", "offset": key[1]}
                    failures.append({"itemIdentifier": identifier})
        return {"batchItemFailures": failures}

    return answer


# --- the wire format ------------------------------------------------------------------------------------------------


def test_the_event_is_what_msk_sends() -> None:
    record = Rec(3, 15, b'{"a":1}', b"key", [("correlation-id", "é".encode())])
    event = msk.event_of([[record]], "arn:aws:kafka:x", "127.0.0.1:9092")
    assert event == {
        "eventSource": "aws:kafka",
        "eventSourceArn": "arn:aws:kafka:x",
        "bootstrapServers": "127.0.0.1:9092",
        "records": {
            f"{TOPIC}-3": [
                {
                    "topic": TOPIC,
                    "partition": 3,
                    "offset": 15,
                    "timestamp": 1_795_000_000_000,
                    "timestampType": "CREATE_TIME",
                    "key": "a2V5",
                    "value": "eyJhIjoxfQ==",
                    "headers": [{"correlation-id": [-61, -87]}],
                }
            ]
        },
    }


def test_powertools_reads_the_event_and_its_answer_is_understood() -> None:
    batch = [[Rec(0, 7), Rec(0, 8, b'{"fails": true}', headers=[("h", b"\xff\x00")])], [Rec(2, 1)]]
    event = msk.event_of(batch, "arn", "b")
    seen: list[dict[str, bytes]] = []

    def handle(record: KafkaEventRecord) -> None:
        seen.append(record.decoded_headers)
        if record.json_value:
            raise ValueError("poison")

    processor = BatchProcessor(event_type=EventType.Kafka)
    answer = process_partial_response(event, handle, processor, context=None)
    assert msk.first_failures(answer, batch) == {f"{TOPIC}-0": 8}
    assert seen[1] == {"h": b"\xff\x00"}


@pytest.mark.parametrize("answer", [None, {}, "", {"batchItemFailures": None}, {"batchItemFailures": []}, "done", 3])
def test_answers_that_mean_success(answer: Any) -> None:
    assert msk.first_failures(answer, [[Rec(0, 1)]]) == {}


@pytest.mark.parametrize(
    "identifier",
    [
        None,
        "",
        {},
        {"partition": f"{TOPIC}-0"},
        {"partition": f"{TOPIC}-9", "offset": 1},
        {"partition": f"{TOPIC}-0", "offset": 2},
    ],
)
def test_an_identifier_that_names_no_record_fails_the_batch(identifier: Any) -> None:
    with pytest.raises(msk.BadResponse):
        msk.first_failures({"batchItemFailures": [{"itemIdentifier": identifier}]}, [[Rec(0, 1)]])


# --- the poller -----------------------------------------------------------------------------------------------------


def test_a_quiet_topic_costs_one_invocation_for_all_partitions() -> None:
    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(Rec(0, 5), Rec(1, 2), Rec(0, 6), Rec(2, 9))
        await consumer.has_committed(p0=7, p1=3, p2=10)
        assert poller.snapshot()["lag"] == 0

    function = with_poller(scenario, batching_window_s=0.05)
    assert len(function.events) == 1


def test_batch_size_is_kept_and_partitions_run_side_by_side() -> None:
    together = asyncio.Event()

    async def answer(event: dict[str, Any]) -> Any:
        assert sum(map(len, event["records"].values())) <= 2
        if len(function_running) < 3:
            function_running.append(1)
            if len(function_running) == 3:
                together.set()
            await asyncio.wait_for(together.wait(), 5)

    function_running: list[int] = []

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(*(Rec(p, n) for p in range(3) for n in range(4)))
        await consumer.has_committed(p0=4, p1=4, p2=4)

    function = with_poller(scenario, answer, batch_size=2, pollers_max=3)
    assert function.running_max == 3
    for number in range(3):
        assert [o for p, o in function.sent() if p == number] == [0, 1, 2, 3]


def test_pollers_max_bounds_the_concurrency() -> None:
    async def answer(event: dict[str, Any]) -> None:
        await asyncio.sleep(0.005)

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(*(Rec(p, n) for p in range(3) for n in range(6)))
        await consumer.has_committed(p0=6, p1=6, p2=6)

    assert with_poller(scenario, answer, batch_size=1, pollers_max=2).running_max == 2


def test_a_failed_record_is_retried_first_and_stalls_only_its_partition() -> None:
    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(*(Rec(0, n) for n in range(4)), Rec(1, 0))
        await consumer.has_committed(p0=2, p1=1)
        consumer.produce(Rec(1, 1), Rec(2, 0))
        await consumer.has_committed(p1=2, p2=1)
        assert consumer.committed[0] == 2

    function = with_poller(scenario, failing((0, 2)), batch_size=10, batching_window_s=0.02)
    tries = [offsets_of(event, 0) for event in function.events if offsets_of(event, 0)]
    assert tries[0] == [0, 1, 2, 3]
    assert len(tries) > 1 and all(t == [2, 3] for t in tries[1:])


def test_a_failed_record_that_recovers_is_committed() -> None:
    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(*(Rec(0, n) for n in range(4)))
        await consumer.has_committed(p0=4)

    with_poller(scenario, failing((0, 2), times=3))


def test_without_partial_responses_the_answer_is_ignored() -> None:
    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(Rec(0, 0))
        await consumer.has_committed(p0=1)

    with_poller(scenario, failing((0, 0)), partial_batch_failures=False)


@pytest.mark.parametrize("error", [FunctionFailed, Throttled, Unreachable, RuntimeError])
def test_a_failed_invocation_commits_nothing_and_is_tried_again(error: type[Exception]) -> None:
    async def answer(event: dict[str, Any]) -> None:
        if len(tries) < 3:
            tries.append(1)
            raise error("away")

    tries: list[int] = []

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(Rec(0, 0), Rec(0, 1))
        await consumer.has_committed(p0=2)
        assert poller.snapshot()["last_error"]

    function = with_poller(scenario, answer)
    assert all(offsets_of(event, 0) == [0, 1] for event in function.events)
    assert len(function.events) == 4


def test_a_partition_that_makes_the_function_raise_stalls_only_itself() -> None:
    async def answer(event: dict[str, Any]) -> None:
        if offsets_of(event, 1):
            raise FunctionFailed("poison")

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(Rec(0, 0), Rec(1, 0), Rec(2, 0))
        await consumer.has_committed(p0=1, p2=1)
        assert 1 not in consumer.committed

    with_poller(scenario, answer, batching_window_s=0.02)


def test_bisecting_isolates_the_poison_record() -> None:
    async def answer(event: dict[str, Any]) -> None:
        if 5 in offsets_of(event, 0):
            raise FunctionFailed("poison")

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(*(Rec(0, n) for n in range(8)))
        await consumer.has_committed(p0=5)

    with_poller(scenario, answer, bisect_on_error=True)


def test_a_commit_that_fails_is_made_up_for() -> None:
    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.commit_error = KafkaConnectionError("away")
        consumer.produce(Rec(0, 0))
        while not function.events:
            await asyncio.sleep(0.005)
        consumer.commit_error = None
        await consumer.has_committed(p0=1)

    assert len(with_poller(scenario).events) == 1


def test_after_losing_the_partitions_nothing_of_theirs_is_committed() -> None:
    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.commit_error = CommitFailedError()
        consumer.produce(Rec(0, 0))
        while poller.snapshot()["records"] == 0 or any(p["partition"] == 0 for p in poller.snapshot()["partitions"]):
            await asyncio.sleep(0.005)
        consumer.commit_error = None
        consumer.produce(Rec(1, 0))
        await consumer.has_committed(p1=1)
        assert 0 not in consumer.committed

    with_poller(scenario)


def test_the_lag_is_the_age_of_the_oldest_record_that_is_not_done() -> None:
    done = asyncio.Event()

    async def answer(event: dict[str, Any]) -> None:
        await done.wait()

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        assert poller.lag_s(TOPIC) is None, "no partition is ours yet"
        now_ms = int(time.time() * 1000)
        consumer.produce(Rec(0, 0, timestamp=now_ms - 90_000), Rec(0, 1, timestamp=now_ms), Rec(1, 0, timestamp=now_ms))
        while not function.events:
            await asyncio.sleep(0.005)
        assert 90 <= (poller.lag_s(TOPIC) or 0) < 100
        done.set()
        await consumer.has_committed(p0=2, p1=1)
        assert poller.lag_s(TOPIC) == 0
        consumer.silent_s = 30
        assert poller.lag_s(TOPIC) is None, "Kafka is away: nobody can say, and an alarm stays as it is"

    with_poller(scenario, answer)


def test_a_lag_that_cannot_be_put_is_lost_and_the_next_is_put(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "EVERY_S", 0.01)
    put: list[dict[str, list[str]]] = []
    came = Event()

    class CloudWatch(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert "/us-east-1/monitoring/" in self.headers["Authorization"]
            put.append(parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(500 if len(put) == 1 else 200)
            self.end_headers()
            if len(put) > 1:
                came.set()

        def log_message(self, *_: object) -> None:
            pass

    asked: list[int] = []

    def read() -> list[lag.Lag]:
        asked.append(1)
        if len(asked) == 1:
            raise RuntimeError("a fault of ours")
        return [lag.Lag("g", TOPIC, 12.5)]

    async def run(url: str) -> None:
        settings = Settings("", url, "encore", "us-east-1", None, ())
        task = asyncio.create_task(lag.publish_lags(settings, read))
        assert await asyncio.to_thread(came.wait, 5)
        assert not task.done()
        task.cancel()

    server = HTTPServer(("127.0.0.1", 0), CloudWatch)
    Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(run(f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()
    assert put[0] == put[1]
    assert put[0]["MetricData.member.1.Value"] == ["12.500"]


def test_a_rebalance_waits_for_what_is_in_flight_and_commits_it() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def answer(event: dict[str, Any]) -> None:
        entered.set()
        await release.wait()

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(Rec(0, 0))
        await asyncio.wait_for(entered.wait(), 5)
        revoking = asyncio.create_task(poller.on_partitions_revoked(consumer.keys()))
        await asyncio.sleep(0)
        assert not revoking.done()
        release.set()
        await revoking
        assert consumer.committed == {0: 1}
        await poller.on_partitions_assigned(consumer.keys())
        consumer.produce(Rec(0, 1))
        await consumer.has_committed(p0=2)

    with_poller(scenario, answer)


def test_stopping_lets_what_is_in_flight_finish() -> None:
    entered = asyncio.Event()
    consumers: list[FakeConsumer] = []

    async def answer(event: dict[str, Any]) -> None:
        entered.set()
        await asyncio.sleep(0.05)

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumers.append(consumer)
        consumer.produce(Rec(0, 0))
        await asyncio.wait_for(entered.wait(), 5)

    with_poller(scenario, answer)
    assert consumers[0].committed == {0: 1}


def test_a_full_buffer_pauses_its_partition_until_it_drains() -> None:
    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(*(Rec(0, n) for n in range(20)))
        while not consumer.paused():
            await asyncio.sleep(0.001)
        await consumer.has_committed(p0=20)
        assert not consumer.paused()

    async def answer(event: dict[str, Any]) -> None:
        await asyncio.sleep(0.005)

    with_poller(scenario, answer, batch_size=2)


def test_an_event_stays_under_lambdas_payload_limit() -> None:
    big = b"x" * 1_500_000

    async def scenario(consumer: FakeConsumer, function: FakeFunction, poller: Poller) -> None:
        consumer.produce(*(Rec(p, n, big) for p in range(2) for n in range(3)))
        await consumer.has_committed(p0=3, p1=3)

    function = with_poller(scenario, batching_window_s=0.05)
    assert all(len(json.dumps(event)) < 6 * 1024 * 1024 for event in function.events)


# --- the Invoke API -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (200, {}, '{"batchItemFailures": []}', {"batchItemFailures": []}),
        (200, {}, "null", None),
        (200, {"X-Amz-Function-Error": "Unhandled"}, '{"errorMessage": "boom"}', FunctionFailed),
        (200, {}, "not json", FunctionFailed),
        (429, {}, "{}", Throttled),
        (404, {}, "Function not found", Unreachable),
        (500, {}, "", Unreachable),
    ],
)
def test_invoking(status: int, headers: dict[str, str], body: str, expected: Any) -> None:
    requests: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, self.headers["Authorization"], sent))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    async def invoke(port: int) -> Any:
        invoker = Invoker(f"http://127.0.0.1:{port}", "encore-f", "ap-northeast-2", 5)
        try:
            return await invoker.invoke({"records": {}})
        except InvokeFailed as e:
            return type(e)
        finally:
            await invoker.close()

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        assert asyncio.run(invoke(server.server_port)) == expected
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    path, authorization, sent = requests[0]
    assert path == "/2015-03-31/functions/encore-f/invocations"
    assert "/ap-northeast-2/lambda/" in str(authorization)
    assert json.loads(sent) == {"records": {}}
    assert asyncio.run(invoke(server.server_port)) is Unreachable, "the server is gone"


def test_settings_list_everything_that_is_wrong() -> None:
    with pytest.raises(BadSettings, match=r"BOOTSTRAP_SERVERS is not set; .*LOCALSTACK_URL is not set"):
        read_settings({})
    with pytest.raises(BadSettings, match="loopback"):
        read_settings({"ENCORE_KAFKA_BOOTSTRAP_SERVERS": "x", "ENCORE_LOCALSTACK_URL": "http://10.0.0.1:4566"})
