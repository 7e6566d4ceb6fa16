"""Forks the processes of ``step_processes``: ``python -m support.step_server FD``, the descriptor of their socket.

It reads a Task from each line of its input, and answers with a process id. When the input ends, all of them end.
"""

import ctypes
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from typing import Any
from uuid import uuid4
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import msgspec

from booking import payment, seats
from booking.payment.gateways import Gateway, Outcome
from booking.platform.loops import run_loop
from booking.platform.postgres import share_connections
from booking.platform.settings import settings
from fast_gateway import wsgi
from support.step_processes import Task

_THREADS, _CONNECTIONS = 16, 2
_RUN_S = 600
_SLOW_S_MAX = 0.1
_PR_SET_PDEATHSIG = 1


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that were killed
    for line in sys.stdin.buffer:
        if (pid := os.fork()) == 0:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            work(msgspec.json.decode(line, type=Task), listening)
            os._exit(0)
        print(pid, flush=True)


def work(task: Task, listening: socket.socket) -> None:
    """What a process does until it is killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(task.environment)
    settings.cache_clear()
    if task.guard_out:
        GUARDS[task.guard_out]()
    take_notes(task.asked, task.slow)
    match task.kind:
        case "steps":
            share_connections(_CONNECTIONS)
            server = Server(listening)
            for _ in range(_THREADS):
                threading.Thread(target=server.work).start()
            signal.pause()
        case "settle":
            run_loop(payment.SETTLING_JOB, 0.1, payment.work, run_s=_RUN_S)
        case "sweep":
            run_loop("expire_holds", 0.5, seats.sweep, run_s=_RUN_S)


def take_notes(asked: str, slow: float) -> None:
    """Write down what the payment firms are asked, and be slow to take that share of their answers in."""
    ask, notes = Gateway._ask, os.open(asked, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def noted(gateway: Gateway, *request: Any) -> Outcome:
        from_s = time.time()
        outcome = ask(gateway, *request)
        os.write(notes, f"{gateway.name} {outcome.value} {from_s} {time.time()}\n".encode())
        if random.random() < slow:
            time.sleep(random.uniform(0, _SLOW_S_MAX))
        return outcome

    Gateway._ask = noted  # type: ignore[method-assign]


def new_key_each_time() -> None:
    ask = Gateway._ask

    def unguarded(gateway: Gateway, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> Outcome:
        charges = path == "/v1/payments" and body is not None
        return ask(gateway, method, path, {**(body or {}), "key": str(uuid4())} if charges else body, timeout_s)

    Gateway._ask = unguarded  # type: ignore[method-assign]


def cancel_without_asking() -> None:
    def cancelled(*_: Any, **__: Any) -> Outcome:
        return Outcome.CANCELLED

    Gateway.cancel = cancelled  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    "one key for all tries of a charge": new_key_each_time,
    "the firm is asked to cancel": cancel_without_asking,
}
"""What a negative control takes out of all processes, by its name."""


class Server(WSGIServer):
    """Takes its turn at a socket on which others accept as well, by threads that keep their connections to Redis."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.getsockname(), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_name, self.server_port = listening.getsockname()
        self.setup_environ()
        self.set_app(application)

    def work(self) -> None:
        """Answer one after the other, for ever."""
        while True:
            connection, address = self.socket.accept()
            with suppress(OSError):  # they have gone
                self.finish_request(connection, address)
            self.shutdown_request(connection)


class Handler(WSGIRequestHandler):
    """Says nothing of each request."""

    def log_message(self, *_: Any) -> None:
        pass


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The bundle; the connection stays open for the answer, so who reads a body on to its end would wait for ever."""
    environ["wsgi.input"] = BytesIO(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)))
    return wsgi.app(environ, start_response)


if __name__ == "__main__":
    main()
