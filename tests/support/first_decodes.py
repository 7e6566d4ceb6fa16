"""Threads that all decode a type for the first time: for a process of its own, which that may end."""

import faulthandler
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Annotated, Any, cast

import msgspec

from booking.platform.edge import StepApp, StrictStruct, read_body

_THREADS = 8
_BODY = b'{"concert_id": 1, "user_id": "somebody"}'
_APP = cast(StepApp, SimpleNamespace(request=SimpleNamespace(headers={}, raw_body=_BODY)))

Read = Callable[[StepApp], Any]


def a_type_that_nobody_has_used() -> type[StrictStruct]:
    class JoinRequest(StrictStruct):
        concert_id: Annotated[int, msgspec.Meta(ge=1)]
        user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]

    return JoinRequest


def as_the_steps_do() -> Read:
    """The decoder is made before anybody asks."""
    decoder = msgspec.json.Decoder(a_type_that_nobody_has_used())
    return lambda app: read_body(app, decoder)


def without_a_decoder() -> Read:
    """The first who asks makes what is needed of the type."""
    kind = a_type_that_nobody_has_used()
    return lambda app: msgspec.json.decode(app.request.raw_body, type=kind)


def read_at_once(ready: Callable[[], Read], rounds: int) -> None:
    """Again and again a new type, and all threads at it together. A crash leaves no core and says nothing."""
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setswitchinterval(1e-6)
    together = Barrier(_THREADS)

    def read_first(read: Read) -> None:
        together.wait()
        read(_APP)

    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in range(rounds):
            list(threads.map(read_first, [ready()] * _THREADS))
