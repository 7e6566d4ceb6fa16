"""Runs the gateway under granian until SIGTERM."""

import gc
import logging
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from aws_lambda_powertools import Logger
from granian import Granian
from granian.constants import HTTPModes, Interfaces, RuntimeModes
from granian.log import LogLevels

from booking.platform.postgres import share_connections
from encore_stack.deployment.template import TemplateError
from fast_gateway.settings import Settings, read_settings

HOST = "127.0.0.1"
_STOP_S_MAX = 10
_OBJECTS_BETWEEN_COLLECTIONS = 50_000

logger = logging.getLogger("fast_gateway")


def main() -> int:
    Logger(service="fast_gateway")
    # granian mixes the process environment into each request's, where HTTP_PROXY would look like a header.
    for name in [name for name in os.environ if name.startswith("HTTP_")]:
        del os.environ[name]
    try:
        settings = read_settings()
        from fast_gateway import wsgi  # loads every function; the workers inherit it

        _check_port(settings.port)
    except (ValueError, TemplateError, OSError) as e:
        logger.error("cannot start", extra={"error": str(e)})
        return 1
    logger.info("starting", extra={"url": f"http://{HOST}:{settings.port}", "functions": sorted(wsgi.app.targets)})
    serve(settings)
    logger.info("stopped")
    return 0


def _check_port(port: int) -> None:
    """Raises OSError when the port is taken; granian would end in a page of Rust frames."""
    socket.create_server((HOST, port)).close()


class _Pinned(Granian):  # type: ignore[misc, valid-type]
    """Keeps each worker on one CPU, where a thread that is waked does not drive out the one that runs.

    Its threads hand the interpreter's lock to each other whenever one waits for Redis or Postgres. On another CPU the
    next one would begin with an interrupt and cold caches; at once, it would find the lock not yet free.
    """

    def _spawn_worker(self, idx: int, target: Any, callback_loader: Callable[[], Any]) -> Any:
        cpus, keep = sorted(os.sched_getaffinity(0)), partial(_load_to_stay, callback_loader)
        return super()._spawn_worker(idx, target, partial(load_on, cpus[idx % len(cpus)], keep))


def _load_to_stay(load: Callable[[], Any]) -> Any:
    """What ``load`` loads. It stays, and a request leaves hardly a cycle behind: neither is looked for much."""
    loaded = load()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    return loaded


def load_on(cpu: int, load: Callable[[], Any]) -> Any:
    """What ``load`` loads, in a worker that stays on ``cpu``. Before it starts its threads: they inherit that."""
    _ask_for("a CPU of its own", lambda: os.sched_setaffinity(0, {cpu}))
    _ask_for("batch scheduling", lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)))
    return load()


def _ask_for(what: str, ask: Callable[[], None]) -> None:
    # A sandbox may refuse it: that costs speed only, while a worker that does not start takes the gateway with it.
    try:
        ask()
    except OSError as fault:
        logger.warning("worker runs without %s", what, extra={"error": str(fault)})


def serve(settings: Settings, application: str = "fast_gateway.wsgi:app") -> None:
    """Serve the WSGI application ``module:name`` until SIGTERM."""
    share_connections(settings.connections)
    server: Any = _Pinned(
        application,
        address=HOST,
        port=settings.port,
        interface=Interfaces.WSGI,
        workers=settings.workers,
        blocking_threads=settings.threads,  # at most: it starts one when a request finds none that is free
        # What waits for a thread waits here, not in the kernel's queue; beyond it new connections wait to be accepted.
        backlog=4096,
        http=HTTPModes.http1,
        websockets=False,
        # Beside st on a busy 2-core machine: as many empty requests, 4-37 % more with a Redis call, p99 a third.
        runtime_mode=RuntimeModes.mt,
        log_level=LogLevels.error,  # its one warning is about the number of threads, which is meant
        respawn_failed_workers=True,
        workers_kill_timeout=_STOP_S_MAX,
    )
    server.serve()


if __name__ == "__main__":
    sys.exit(main())
