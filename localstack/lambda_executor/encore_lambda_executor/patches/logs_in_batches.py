"""What functions print reaches CloudWatch Logs once a second, not once a call.

LocalStack puts each invocation's lines through its own HTTP port, 5 ms of CPU each. Here the lines of one second and
one log stream go together, each with the time at which it was written; after a pause the first lines go at once. They
go straight to where the request would end, for of the batches too most of the cost was the request: 12 % of all CPU at
8 connections. LocalStack's own way is taken for a stream's first lines, which make it, and where a metric filter looks
at what is put.
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from typing import Any

LOG = logging.getLogger(__name__)

INTERVAL_S = 1.0
EVENTS_MAX = 10_000  # of one PutLogEvents
_LOGS = "localstack.services.lambda_.invocation.logs"
REPLACES = (f"{_LOGS}:LogHandler.add_logs", f"{_LOGS}:LogHandler.run_log_loop")

Event = dict[str, Any]
Stream = tuple[str, str]  # group, stream


@dataclasses.dataclass(frozen=True)
class Written:
    """What one invocation wrote, and when."""

    stream: Stream
    text: str
    time_ms: int


def batches(items: list[Written]) -> Iterator[tuple[Stream, list[Event]]]:
    """The log events of each stream in the order of their time, in pieces that one request may have."""
    streams: dict[Stream, list[Event]] = {}
    for item in sorted(items, key=lambda item: item.time_ms):
        # CloudWatch takes no empty lines; all lines of an invocation bear one time, as in LocalStack.
        lines = [line + "\n" for line in item.text.split("\n") if line]
        streams.setdefault(item.stream, []).extend({"timestamp": item.time_ms, "message": line} for line in lines)
    for stream, events in streams.items():
        for start in range(0, len(events), EVENTS_MAX):
            yield stream, events[start : start + EVENTS_MAX]


def apply() -> None:
    from localstack.aws.connect import connect_to
    from localstack.services.lambda_.invocation.logs import QUEUE_SHUTDOWN, LogHandler
    from localstack.services.logs.models import get_moto_logs_backend
    from localstack.utils.aws.client_types import ServicePrincipal
    from localstack.utils.bootstrap import is_api_enabled
    from moto.logs.exceptions import ResourceNotFoundException

    def add_logs(self: Any, log_item: Any) -> None:
        if is_api_enabled("logs"):
            stream = (log_item.log_group, log_item.log_stream)
            self.log_queue.put(Written(stream, log_item.logs, int(time.time() * 1000)))

    def run_log_loop(self: Any, *_: Any, **__: Any) -> None:
        client: Any = None
        flushed = float("-inf")
        stopped = False
        while not stopped:
            items = [self.log_queue.get()]
            # Returns early when the handler is told to stop.
            self._shutdown_event.wait(max(flushed + INTERVAL_S - time.monotonic(), 0))
            flushed = time.monotonic()
            items += [self.log_queue.get_nowait() for _ in range(self.log_queue.qsize())]
            stopped = QUEUE_SHUTDOWN in items
            try:
                for stream, events in batches([item for item in items if item is not QUEUE_SHUTDOWN]):
                    if not put_straight(self, stream, events):
                        client = client or _client(self)
                        _put(client, stream, events)
            except Exception as error:
                LOG.warning("cannot store the logs of Lambda functions in %s: %s", self.region, error)

    def put_straight(handler: Any, stream: Stream, events: list[Event]) -> bool:
        account_id = handler.role_arn.split(":")[4]  # the role's account is the one that its client would speak for
        backend = get_moto_logs_backend(account_id, handler.region)
        if backend.filters.metric_filters:
            return False
        try:
            backend.put_log_events(*stream, events)
        except ResourceNotFoundException:
            return False
        return True

    def _client(handler: Any) -> Any:
        return connect_to.with_assumed_role(
            region_name=handler.region, role_arn=handler.role_arn, service_principal=ServicePrincipal.lambda_
        ).logs

    LogHandler.add_logs = add_logs
    LogHandler.run_log_loop = run_log_loop


def _put(client: Any, stream: Stream, events: list[Event]) -> None:
    group_name, stream_name = stream
    put = {"logGroupName": group_name, "logStreamName": stream_name, "logEvents": events}
    try:
        client.put_log_events(**put)
    except client.exceptions.ResourceNotFoundException:
        with contextlib.suppress(client.exceptions.ResourceAlreadyExistsException):
            client.create_log_group(logGroupName=group_name)
        client.create_log_stream(logGroupName=group_name, logStreamName=stream_name)
        client.put_log_events(**put)
