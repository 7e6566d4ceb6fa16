"""LocalStack with the executor behaves as Lambda does: what the functions rely on, through Lambda's own API."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.exceptions import ClientError

from encore_stack.deployment.functions import wait_updated
from encore_stack.deployment.one_file import create_function, zipped
from encore_stack.deployment.target import target_of
from encore_stack.instance import Instance
from support.waiting import wait_for

_WAIT_S = 30


@dataclass
class Function:
    """A small function of a test's own."""

    client: Any
    name: str

    def invoke(self, payload: Any = None) -> dict[str, Any]:
        """The whole answer: ``payload``, ``error`` (None or Unhandled) and the tail of the log."""
        answer = self.client.invoke(FunctionName=self.name, Payload=json.dumps(payload), LogType="Tail")
        return {
            "payload": json.loads(answer["Payload"].read()),
            "error": answer.get("FunctionError"),
            "log": b64decode(answer.get("LogResult", "")).decode(),
        }

    def configure(self, **configuration: Any) -> None:
        self.client.update_function_configuration(FunctionName=self.name, **configuration)
        wait_updated(self.client, self.name)

    def replace(self, source: str) -> None:
        self.client.update_function_code(FunctionName=self.name, ZipFile=zipped(source))
        wait_updated(self.client, self.name)


@pytest.fixture(scope="module")
def lambda_client(instance: Instance) -> Any:
    return target_of(instance).client("lambda")


@pytest.fixture
def make(lambda_client: Any) -> Iterator[Callable[..., Function]]:
    names: list[str] = []

    def create(source: str, name_part: str = "", **configuration: Any) -> Function:
        name = f"test-{name_part}{uuid4().hex[:12]}"
        names.append(name)
        create_function(lambda_client, name, source, **configuration)
        return Function(lambda_client, name)

    yield create
    for name in names:
        lambda_client.delete_function(FunctionName=name)


def test_a_changed_environment_is_seen_by_the_next_call(make: Callable[..., Function]) -> None:
    function = make(
        "import os\ndef handler(event, context): return os.environ['COLOUR']",
        Environment={"Variables": {"COLOUR": "red"}},
    )
    assert function.invoke()["payload"] == "red"

    function.configure(Environment={"Variables": {"COLOUR": "blue"}})

    assert function.invoke()["payload"] == "blue"


def test_new_code_is_run_by_the_next_call(make: Callable[..., Function]) -> None:
    function = make("def handler(event, context): return 1")
    assert function.invoke()["payload"] == 1

    function.replace("def handler(event, context): return 2")

    assert function.invoke()["payload"] == 2


def test_a_timeout_ends_the_call_and_the_next_one_is_served(make: Callable[..., Function]) -> None:
    function = make("import time\ndef handler(event, context): time.sleep(event)", Timeout=1)

    late = function.invoke(30)

    assert late["error"] == "Unhandled"
    assert "timed out after 1.00 seconds" in late["payload"]["errorMessage"]
    assert function.invoke(0)["error"] is None


def test_an_error_while_importing_is_answered_and_heals(make: Callable[..., Function]) -> None:
    function = make("raise RuntimeError('not today')\ndef handler(event, context): pass")

    broken = function.invoke()

    assert broken["error"] == "Unhandled"
    assert broken["payload"]["errorType"] == "RuntimeError"
    assert "not today" in broken["payload"]["errorMessage"]
    function.replace("def handler(event, context): return 'well'")
    assert function.invoke()["payload"] == "well"


def test_an_exception_is_answered_with_its_type_and_logged(make: Callable[..., Function]) -> None:
    failed = make("def handler(event, context): return 1 / 0").invoke()

    assert failed["payload"]["errorType"] == "ZeroDivisionError"
    assert "ZeroDivisionError" in failed["log"]


def test_reserved_concurrency_throttles_further_calls(make: Callable[..., Function]) -> None:
    function = make("import time\ndef handler(event, context): time.sleep(event)", Timeout=10)
    function.client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)

    def invoke(_: int) -> str:
        try:
            return str(function.invoke(1)["error"])
        except ClientError as refused:
            return str(refused.response["Error"]["Code"])

    with ThreadPoolExecutor(3) as callers:
        outcomes = sorted(callers.map(invoke, range(3)))

    assert outcomes[0] == "None"
    assert "TooManyRequestsException" in outcomes


def test_at_most_eight_environments_serve_and_further_calls_wait(make: Callable[..., Function]) -> None:
    function = make(
        "import os, time\ndef handler(event, context):\n    time.sleep(0.3)\n    return os.getpid()", Timeout=20
    )

    with ThreadPoolExecutor(20) as callers:
        answers = list(callers.map(lambda _: function.invoke(), range(20)))

    assert all(answer["error"] is None for answer in answers)
    assert len({answer["payload"] for answer in answers}) <= 8


def test_a_background_loop_has_its_leader_and_one_that_stands_by(lambda_client: Any) -> None:
    reserved = lambda_client.get_function_concurrency(FunctionName="encore-every_minute_relay_outbox")

    assert reserved["ReservedConcurrentExecutions"] == 2


@pytest.fixture
def came(tmp_path: Path) -> Callable[[], list[int]]:
    """The numbers of the events that ``_NOTES_EVENTS`` has noted, sorted."""

    def read() -> list[int]:
        return sorted(int(path.name.partition("-")[0]) for path in tmp_path.iterdir())

    return read


_NOTES_EVENTS = """
import pathlib, time
def handler(event, context):
    time.sleep(event["works_s"])
    pathlib.Path(event["folder"], f"{event['number']}-{context.aws_request_id}").touch()
# VERSION
"""


def send(function: Function, numbers: Iterable[int], folder: Path, works_s: float = 0.0) -> None:
    """Invoke asynchronously; a file in the folder will say of each number that its event has come."""
    for number in numbers:
        event = json.dumps({"number": number, "folder": str(folder), "works_s": works_s})
        function.client.invoke(FunctionName=function.name, InvocationType="Event", Payload=event)


def wait_for_all(came: Callable[[], list[int]], count: int) -> None:
    """Return when each event has come once."""
    wait_for(came, lambda numbers: numbers == list(range(count)))


def test_events_sent_right_after_an_update_come(
    make: Callable[..., Function], tmp_path: Path, came: Callable[[], list[int]]
) -> None:
    function = make(_NOTES_EVENTS)

    for update in range(10):
        function.replace(_NOTES_EVENTS.replace("VERSION", str(update)))
        send(function, range(update * 20, update * 20 + 20), tmp_path)

    wait_for_all(came, 200)


def test_events_that_wait_while_the_function_is_updated_come(
    make: Callable[..., Function], tmp_path: Path, came: Callable[[], list[int]]
) -> None:
    function = make(_NOTES_EVENTS)

    send(function, range(40), tmp_path, works_s=0.2)
    function.replace(_NOTES_EVENTS.replace("VERSION", "other"))

    wait_for_all(came, 40)


def test_new_code_of_a_loop_begins_though_two_runs_of_the_old_are_under_way(
    make: Callable[..., Function], tmp_path: Path
) -> None:
    source = f"""
import pathlib, time
def handler(event, context):
    pathlib.Path({str(tmp_path)!r}, "VERSION-" + context.aws_request_id).touch()
    time.sleep({2 * _WAIT_S})
"""
    function = make(source.replace("VERSION", "old"), name_part="every_minute_", Timeout=3 * _WAIT_S)
    function.client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=2)

    def begin(count: int, version: str) -> None:
        for _ in range(count):
            function.client.invoke(FunctionName=function.name, InvocationType="Event", Payload=b"{}")
        wait_for(lambda: len(list(tmp_path.glob(f"{version}-*"))), lambda begun: begun >= count, within_s=_WAIT_S)

    begin(2, "old")
    function.replace(source.replace("VERSION", "new"))
    begin(1, "new")
