"""The logger of a process of many threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from booking.platform import telemetry


def test_threads_that_log_for_the_first_time_at_once_make_one_logger_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_at_once: list[int] = []
    making, ready = threading.Semaphore(0), threading.Barrier(4)

    class Unfinished:
        def __init__(self) -> None:
            making.release()
            time.sleep(0.01)  # as long as others may come in
            made_at_once.append(making._value)
            making.acquire()

    def log(_: int) -> None:
        ready.wait()
        telemetry.logger()

    monkeypatch.setattr(telemetry, "Logger", Unfinished)
    telemetry.logger.cache_clear()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(log, range(4)))
    telemetry.logger.cache_clear()

    assert set(made_at_once) == {1}
