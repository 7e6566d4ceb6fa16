"""Bodies that many threads of a process decode for the first time at once."""

import ast
import faulthandler
import multiprocessing
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from types import SimpleNamespace
from typing import Annotated, Any, cast

import msgspec
import pytest

from booking.platform.edge import StepApp, StrictStruct, read_body
from encore_stack.instance import PROJECT_DIR

_THREADS, _ROUNDS, _ROUNDS_MAX = 8, 100, 5_000
_BODY = b'{"concert_id": 1, "user_id": "somebody"}'
_APP = cast(StepApp, SimpleNamespace(request=SimpleNamespace(headers={}, raw_body=_BODY)))

Read = Callable[[StepApp], Any]


def a_type_that_nobody_has_used() -> type[StrictStruct]:
    class JoinRequest(StrictStruct):
        concert_id: Annotated[int, msgspec.Meta(ge=1)]
        user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]

    return JoinRequest


def as_the_steps_do() -> Read:
    decoder = msgspec.json.Decoder(a_type_that_nobody_has_used())
    return lambda app: read_body(app, decoder)


def without_a_decoder() -> Read:
    kind = a_type_that_nobody_has_used()
    return lambda app: msgspec.json.decode(app.request.raw_body, type=kind)


def read_at_once(ready: Callable[[], Read], rounds: int) -> None:
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


@pytest.mark.parametrize(
    ("ready", "rounds", "exit_code"),
    [(as_the_steps_do, _ROUNDS, 0), (without_a_decoder, _ROUNDS_MAX, -signal.SIGSEGV)],
)
def test_a_decoder_made_beforehand_keeps_the_process_alive(
    ready: Callable[[], Read], rounds: int, exit_code: int
) -> None:
    process = multiprocessing.get_context("fork").Process(target=read_at_once, args=(ready, rounds))
    process.start()
    process.join()

    assert process.exitcode == exit_code


def calls_that_name_a_type(file: Path) -> Iterator[str]:
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    for call in calls:
        named = any(keyword.arg == "type" for keyword in call.keywords)
        if named and ast.unparse(call.func) == "msgspec.json.decode":
            yield f"{file.relative_to(PROJECT_DIR)}:{call.lineno}"


def test_nothing_of_the_bundle_decodes_into_a_type_without_one() -> None:
    files = [file for folder in ("functions", "layers/booking") for file in (PROJECT_DIR / folder).rglob("*.py")]

    assert [call for file in files for call in calls_that_name_a_type(file)] == []
