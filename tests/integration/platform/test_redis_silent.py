"""A Redis that hangs: it accepts connections and never answers. What one request waits for it is bounded."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from redis.exceptions import RedisError

from booking.platform import redis_client, silence
from booking.platform.redis import redis
from support.client import Person, assert_problem
from support.shop import Shop

_TIMEOUT_S = 0.25


class SilentServer:
    """Accepts and never answers. A question that times out ends its connection, so connections count questions."""

    def __init__(self, opened: ExitStack) -> None:
        self._listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._opened = opened
        self._accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        opened.callback(self._listener.shutdown, socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                self._accepted.append(self._opened.enter_context(self._listener.accept()[0]))
            except OSError:
                return

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    @property
    def questions(self) -> int:
        return len(self._accepted)


@pytest.fixture
def make_silent(use_settings: Callable[..., None]) -> Iterator[Callable[[], SilentServer]]:
    use_settings(redis_timeout_s=_TIMEOUT_S)
    with ExitStack() as opened:
        yield lambda: SilentServer(opened)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The module's clock, which stands still unless a test moves ``now_s``."""
    clock = SimpleNamespace(now_s=1_000.0)
    monkeypatch.setattr(silence, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def test_a_reservation_waits_once_for_each_silent_server(
    http: httpx.Client, shop: Shop, make_silent: Callable[[], SilentServer], use_settings: Callable[..., None]
) -> None:
    person = Person(http).join(shop.concert_id)
    locks, cache = make_silent(), make_silent()
    use_settings(locks_redis_url=locks.url, cache_redis_url=cache.url)

    assert person.reserve(shop.concert_id, [1]).status_code == 201
    assert (locks.questions, cache.questions) == (1, 1)


def test_while_a_server_is_silent_nobody_asks_it(
    http: httpx.Client,
    shop: Shop,
    make_silent: Callable[[], SilentServer],
    use_settings: Callable[..., None],
    clock: SimpleNamespace,
) -> None:
    person = Person(http).join(shop.concert_id)
    silent = make_silent()
    use_settings(locks_redis_url=silent.url, cache_redis_url=silent.url, queue_redis_url=silent.url)

    seat_map = http.get(f"schedules/{shop.concert_id}/seats", headers=person.with_pass)
    assert seat_map.status_code == 200
    assert silent.questions == 1
    reserved = person.reserve(shop.concert_id, [1])
    assert reserved.status_code == 201
    assert person.pay(reserved.json()["reservation_id"]).status_code == 201
    assert_problem(http.get("queue/tokens/current", headers=person.with_token), 503, "line-away")
    assert silent.questions == 1


def test_then_one_thread_tries_and_the_others_do_not_wait_for_it(
    make_silent: Callable[[], SilentServer], use_settings: Callable[..., None], clock: SimpleNamespace
) -> None:
    silent = make_silent()
    use_settings(cache_redis_url=silent.url)
    together = threading.Barrier(8)

    def ask(_: int) -> None:
        together.wait(10)
        with pytest.raises(RedisError):
            redis("cache").get("anything")

    with pytest.raises(RedisError):
        redis("cache").get("anything")
    for tried in (2, 3):
        clock.now_s += redis_client._SILENT_S + 0.001
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, range(8)))
        assert silent.questions == tried


def test_a_server_that_goes_on_is_asked_again(
    free_port: Callable[[], int], use_settings: Callable[..., None], clock: SimpleNamespace, tmp_path: Path
) -> None:
    port = free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any("Ready to accept connections" in line for line in process.stdout)
        use_settings(cache_redis_url=f"redis://127.0.0.1:{port}/0", redis_timeout_s=_TIMEOUT_S)
        assert redis("cache").incr("asked") == 1

        os.kill(process.pid, signal.SIGSTOP)
        clock.now_s += _TIMEOUT_S
        with pytest.raises(RedisError):  # on a connection that lives: sent once, not once more
            redis("cache").incr("asked")
        os.kill(process.pid, signal.SIGCONT)
        with pytest.raises(RedisError):
            redis("cache").incr("asked")

        clock.now_s += redis_client._SILENT_S + 0.001
        assert redis("cache").incr("asked") == 3
        assert redis("cache").incr("asked") == 4
    finally:
        process.kill()
        process.wait()
