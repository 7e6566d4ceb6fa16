"""The patches of LocalStack, as far as they go without LocalStack: the switch, collecting, timing."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from encore_lambda_executor.patches import NEEDED, SPEED, SWITCH, UnknownPatch, chosen
from encore_lambda_executor.patches.logs_in_batches import EVENTS_MAX, Written, batches
from encore_lambda_executor.patches.metrics_in_batches import DATA_MAX, MetricCollector
from encore_lambda_executor.patches.one_keepalive_thread import SharedTimer
from encore_lambda_executor.patches.randomness_in_stock import SIZE_MAX, STOCK_BYTES, Stock
from encore_stack.instance import Instance
from encore_stack.parts import PartError
from encore_stack.parts.localstack import LocalStack, localstack_environment

_SCOPE = ("000000000000", "us-east-1")
_INSTANCE = Instance("sample", Path("/nowhere"), ports={"localstack": 4566})


class Puts:
    """Stands where CloudWatch is; refuses as often as it is told."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.data: list[dict[str, Any]] = []
        self.sizes: list[int] = []
        self.came = threading.Event()

    def __call__(self, scope: tuple[str, str], data: list[dict[str, Any]]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("refused")
        assert scope == _SCOPE
        self.data += data
        self.sizes.append(len(data))
        self.came.set()

    def sums(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for each in self.data:
            key = each["Dimensions"][0]["Value"], each["MetricName"]
            found[key] = found.get(key, 0) + each["StatisticValues"]["Sum"]
        return found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, SPEED),
        ("", SPEED),
        ("all", SPEED),
        ("none", ()),
        ("logs_in_batches", ("logs_in_batches",)),
        (" logs_in_batches , metrics_in_batches,", ("metrics_in_batches", "logs_in_batches")),
    ],
)
def test_the_switch_chooses_patches(text: str | None, names: tuple[str, ...]) -> None:
    assert chosen({SWITCH: text} if text is not None else {}) == names


@pytest.mark.parametrize("text", ["fast", "metrics_in_batches,fast", "all,none", "tag_rest_apis"])
def test_the_switch_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises(UnknownPatch, match=r"there is no patch '.+'; say all, none, or some of metrics_in_batches,"):
        chosen({SWITCH: text})


def test_each_patch_has_a_file_of_its_own() -> None:
    folder = Path(__file__).parents[2] / "localstack/lambda_executor/encore_lambda_executor/patches"
    assert {file.stem for file in folder.glob("*.py")} == {"__init__", *NEEDED, *SPEED}


def test_localstack_gets_the_switch_of_whoever_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, told in (("none", "none"), ("logs_in_batches", "logs_in_batches"), ("all", ",".join(SPEED))):
        monkeypatch.setenv(SWITCH, text)
        assert LocalStack().environment(_INSTANCE)[SWITCH] == localstack_environment(_INSTANCE)[SWITCH] == told
        assert chosen({SWITCH: told}) == chosen({SWITCH: text})

    monkeypatch.setenv(SWITCH, "fast")
    with pytest.raises(PartError, match="fast"):
        LocalStack().environment(_INSTANCE)


def test_metrics_are_counted_by_function_metric_and_second() -> None:
    puts = Puts()
    collector = MetricCollector(puts, interval_s=3600)

    threads = [
        threading.Thread(target=lambda: [collector.count(_SCOPE, "one", "Invocations") for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    collector.count(_SCOPE, "two", "Invocations", "Errors")
    collector.flush()
    collector.flush()

    assert puts.sums() == {("one", "Invocations"): 2000, ("two", "Invocations"): 1, ("two", "Errors"): 1}
    assert all(each["StatisticValues"]["SampleCount"] == each["StatisticValues"]["Sum"] for each in puts.data)
    assert all(abs(each["Timestamp"].timestamp() - time.time()) < 60 for each in puts.data)


def test_no_more_metrics_are_put_at_once_than_cloudwatch_takes() -> None:
    puts = Puts()
    collector = MetricCollector(puts, interval_s=3600)
    for number in range(DATA_MAX + 1):
        collector.count(_SCOPE, f"function-{number}", "Invocations")

    collector.flush()

    assert len(puts.data) >= DATA_MAX + 1
    assert max(puts.sizes) <= DATA_MAX


def test_the_thread_that_puts_metrics_survives_a_refusal() -> None:
    puts = Puts(refusals=1)
    collector = MetricCollector(puts, interval_s=0.01)
    deadline = time.monotonic() + 10

    while not puts.came.wait(0.02):
        assert time.monotonic() < deadline
        collector.count(_SCOPE, "one", "Invocations")

    assert puts.refusals == 0


def test_log_lines_go_together_by_stream_in_the_order_of_their_time() -> None:
    one, two = ("group", "one"), ("group", "two")
    items = [
        Written(one, "START\n\nhello\n", 2000),
        Written(two, "other\n", 2001),
        Written(one, "an earlier one, after the clock was set back\n", 1000),
    ]

    assert list(batches(items)) == [
        (
            one,
            [
                {"timestamp": 1000, "message": "an earlier one, after the clock was set back\n"},
                {"timestamp": 2000, "message": "START\n"},
                {"timestamp": 2000, "message": "hello\n"},
            ],
        ),
        (two, [{"timestamp": 2001, "message": "other\n"}]),
    ]


def test_no_more_lines_go_at_once_than_cloudwatch_takes() -> None:
    parts = list(batches([Written(("group", "one"), "line\n" * (EVENTS_MAX + 5), 1000)]))

    assert [len(events) for _, events in parts] == [EVENTS_MAX, 5]


def test_a_keepalive_passes_unless_it_is_cancelled() -> None:
    passed: list[str] = []
    done = threading.Event()
    cancelled = SharedTimer(0.01, lambda: passed.append("cancelled"))
    timers = [cancelled, SharedTimer(0.01, lambda: passed.append("kept")), SharedTimer(0.02, done.set)]
    for timer in timers:
        timer.start()
    cancelled.cancel()
    cancelled.cancel()

    assert done.wait(10)
    assert passed == ["kept"]


def test_random_bytes_are_given_once_whoever_asks() -> None:
    def ask(size: int) -> bytes:
        asked.append(size)
        return b"".join(next(numbers).to_bytes(8) for _ in range(size // 8))

    asked: list[int] = []
    numbers = iter(range(1_000_000))
    stock, given = Stock(ask), list[bytes]()

    def take() -> None:
        given.extend([stock.take(8) for _ in range(2000)])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(given)) == 8000
    assert set(asked) == {STOCK_BYTES}
    assert len(stock.take(SIZE_MAX)) == SIZE_MAX
    assert len(stock.take(SIZE_MAX + 8)) == SIZE_MAX + 8 == asked[-1]


def test_a_forked_process_gives_no_random_bytes_of_its_parent() -> None:
    stock = Stock(os.urandom)
    stock.take(8)
    kept = stock.__dict__.copy()  # what a fork would copy
    given = stock.take(8)

    stock.__dict__.update(kept)
    assert stock.take(8) == given
    stock.__dict__.update(kept)
    stock.forget()
    assert stock.take(8) != given
