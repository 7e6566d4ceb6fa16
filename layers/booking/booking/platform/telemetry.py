"""Structured logs and metrics of one function, and the correlation id that ties a request to its Kafka records."""

import logging
import os
import random
import re
import sys
import threading
from contextvars import ContextVar
from functools import cache

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

CORRELATION_HEADER = "x-correlation-id"
_USABLE_CORRELATION = re.compile(r"(?=-*[0-9A-Za-z])[0-9A-Za-z-]{1,64}")
_NAMESPACE = "Encore"

_correlation_id: ContextVar[str] = ContextVar("correlation_id", default="-")
_write_lock = threading.Lock()
_make_lock = threading.Lock()


@cache
def logger() -> Logger:
    """The function's structured logger (service name from POWERTOOLS_SERVICE_NAME)."""
    with _make_lock:  # a second thread would find the first one's half made, and fail
        return Logger()


def correlation_id() -> str:
    """The id of the request (or of the event) that is being worked on; '-' outside of one."""
    return _correlation_id.get()


def logs_info() -> bool:
    """Whether lines of level INFO are written at all: asked before a line is put together for every request."""
    return bool(logger().log_level <= logging.INFO)


def start_correlation(offered: str | None) -> str:
    """Adopt the caller's correlation id when it is short and plain, else make one; returns the id in force."""
    # os.urandom would let go of the interpreter's lock, which a busy server's thread waits to get back.
    adopted = offered if offered and _USABLE_CORRELATION.fullmatch(offered) else f"{random.getrandbits(128):032x}"
    _correlation_id.set(adopted)
    return adopted


def count(name: str, **dimensions: str) -> None:
    """Count one occurrence of ``name`` as a CloudWatch metric in embedded metric format."""
    measure(name, 1, MetricUnit.Count, **dimensions)


def measure(name: str, value: float, unit: MetricUnit, **dimensions: str) -> None:
    """Record one value of the metric ``name``. Silent where POWERTOOLS_METRICS_DISABLED is set."""
    if os.environ.get("POWERTOOLS_METRICS_DISABLED", "").lower() in ("true", "1"):
        return
    # EphemeralMetrics keeps no state between calls: the shared Metrics object mixes up threads of the fast gateway.
    metrics = EphemeralMetrics(namespace=_NAMESPACE)
    for dimension, text in dimensions.items():
        metrics.add_dimension(dimension, text)
    metrics.add_metric(name, unit, value)
    with _write_lock:
        metrics.flush_metrics()
        sys.stdout.flush()
