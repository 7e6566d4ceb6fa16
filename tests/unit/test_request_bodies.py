"""Bodies that many threads of a process decode for the first time at once."""

import ast
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from encore_stack.instance import PROJECT_DIR
from support.first_decodes import Read, as_the_steps_do, read_at_once, without_a_decoder


@pytest.mark.parametrize(
    ("ready", "rounds", "exit_code"),
    [(as_the_steps_do, 100, 0), (without_a_decoder, 5_000, -signal.SIGSEGV)],
)
def test_a_decoder_made_beforehand_keeps_the_process_alive(
    ready: Callable[[], Read], rounds: int, exit_code: int
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=read_at_once, args=(ready, rounds))
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
