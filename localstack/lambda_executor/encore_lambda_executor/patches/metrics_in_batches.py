"""Lambda's metrics, written every two seconds instead of at every call.

LocalStack starts a thread for each invocation, which puts one CloudWatch metric through the HTTP port into SQLite:
10 to 12 ms of CPU, and the thread is remembered for ever. Here they are counted, by the second that CloudWatch keeps,
and put as statistic values: all a reader can ask for (sum, average, minimum, maximum, sample count) is the same.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

LOG = logging.getLogger(__name__)

INTERVAL_S = 2.0
DATA_MAX = 1000  # of one PutMetricData
_THREAD_NAME = "record-cloudwatch-metric"
_VERSION_MANAGER = "localstack.services.lambda_.invocation.version_manager"
REPLACES = tuple(
    f"{_VERSION_MANAGER}:{name}" for name in ("record_cw_metric_invocation", "record_cw_metric_error", "start_thread")
)

Scope = tuple[str, str]  # account, region
Put = Callable[[Scope, list[dict[str, Any]]], None]


class MetricCollector:
    """Counts until the next flush. Thread-safe; its thread is a daemon, starts with the first count, and goes on
    whatever `put` raises."""

    def __init__(self, put: Put, interval_s: float = INTERVAL_S) -> None:
        self._put, self._interval_s = put, interval_s
        self._lock = threading.Lock()
        self._counts: Counter[tuple[Scope, str, str, int]] = Counter()
        self._thread: threading.Thread | None = None

    def count(self, scope: Scope, function_name: str, *metrics: str) -> None:
        """One of each of `metrics`, now."""
        second = int(time.time())
        with self._lock:
            for metric in metrics:
                self._counts[scope, function_name, metric, second] += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="encore-lambda-metrics", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Puts what was counted. What cannot be put is lost, as in LocalStack."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        data: dict[Scope, list[dict[str, Any]]] = {}
        for (scope, function_name, metric, second), count in counts.items():
            data.setdefault(scope, []).append(_datum(function_name, metric, second, count))
        for scope, each in data.items():
            for start in range(0, len(each), DATA_MAX):
                try:
                    self._put(scope, each[start : start + DATA_MAX])
                except Exception as error:
                    LOG.warning("cannot put the metrics of Lambda functions: %s", error)

    def _run(self) -> None:
        while True:
            time.sleep(self._interval_s)
            self.flush()


def _datum(function_name: str, metric: str, second: int, count: int) -> dict[str, Any]:
    return {
        "MetricName": metric,
        "Dimensions": [{"Name": "FunctionName", "Value": function_name}],
        "Timestamp": datetime.fromtimestamp(second, UTC),
        "StatisticValues": {"SampleCount": count, "Sum": count, "Minimum": 1, "Maximum": 1},
    }


def _put(scope: Scope, data: list[dict[str, Any]]) -> None:
    from localstack.aws.connect import connect_to
    from localstack.utils.bootstrap import is_api_enabled

    if is_api_enabled("cloudwatch"):
        account_id, region = scope
        client = connect_to(aws_access_key_id=account_id, region_name=region).cloudwatch
        client.put_metric_data(Namespace="AWS/Lambda", MetricData=data)


def apply() -> None:
    from localstack.runtime.shutdown import SHUTDOWN_HANDLERS
    from localstack.services.lambda_.invocation import version_manager

    collector = MetricCollector(_put)
    start_thread = version_manager.start_thread

    def record_invocation(function_name: str, account_id: str, region_name: str) -> None:
        collector.count((account_id, region_name), function_name, "Invocations")

    def record_error(function_name: str, account_id: str, region_name: str) -> None:
        collector.count((account_id, region_name), function_name, "Invocations", "Errors")

    def start_thread_unless_for_a_metric(method: Any, *arguments: Any, name: str | None = None, **options: Any) -> Any:
        if name and name.startswith(_THREAD_NAME):
            return method()  # counting needs no thread
        return start_thread(method, *arguments, name=name, **options)

    version_manager.record_cw_metric_invocation = record_invocation
    version_manager.record_cw_metric_error = record_error
    version_manager.start_thread = start_thread_unless_for_a_metric
    SHUTDOWN_HANDLERS.register(collector.flush)
