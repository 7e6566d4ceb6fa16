"""One thread watches all idle execution environments.

LocalStack starts a timer thread at the end of each invocation, only to cancel it at the next one.
"""

import threading
import time
from collections.abc import Callable

INTERVAL_S = 0.5
_ENVIRONMENT = "localstack.services.lambda_.invocation.execution_environment"
REPLACES = (f"{_ENVIRONMENT}:Timer",)

_due: dict["SharedTimer", float] = {}
_watch_lock = threading.Lock()
_watcher: threading.Thread | None = None


class SharedTimer:
    """threading.Timer to within half a second, with a thread of its own only when the time has come."""

    def __init__(self, interval: float, function: Callable[[], object]) -> None:
        self.interval, self.function = interval, function

    def start(self) -> None:
        _due[self] = time.monotonic() + self.interval
        if _watcher is None:
            _start_watcher()

    def cancel(self) -> None:
        _due.pop(self, None)


def _start_watcher() -> None:
    global _watcher  # noqa: PLW0603
    with _watch_lock:
        if _watcher is None:
            _watcher = threading.Thread(target=_watch, name="encore-keepalive", daemon=True)
            _watcher.start()


def _watch() -> None:
    while True:
        time.sleep(INTERVAL_S)
        now = time.monotonic()
        for timer, due in list(_due.items()):
            if due <= now and _due.pop(timer, None) is not None:
                threading.Thread(target=timer.function, name="encore-keepalive-passed", daemon=True).start()


def apply() -> None:
    from localstack.services.lambda_.invocation import execution_environment

    execution_environment.Timer = SharedTimer
