"""LocalStack with the patches that make it faster, and LocalStack without them, answer alike.

Two LocalStacks of the test's own stand side by side, one with all patches and one with none; both get the same small
API and the same requests. The test stack is not needed, only what scripts/up has installed.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from encore_lambda_executor.patches import SPEED, SWITCH
from encore_stack.deployment.one_file import create_function, zipped
from encore_stack.instance import PROJECT_DIR, Instance
from encore_stack.localstack_runner import start_localstack
from support.waiting import wait_for

_WAIT_S = 90
_API_ID = "probe"
_ROLE = "arn:aws:iam::000000000000:role/test"
_LAMBDA = "arn:aws:lambda:us-east-1:000000000000:function"
_PROBE = """
import json, os, time

def handler(event, context):
    print("asked for", event["resource"])
    return ANSWERS[event["resource"]](event, context)

def echo(event, context):
    seen = {"function": context.function_name, "version": context.function_version, "arn": context.invoked_function_arn,
            "group": context.log_group_name, "environment": sorted(os.environ)}
    return {"statusCode": 201, "body": json.dumps({"event": event, "context": seen}, ensure_ascii=False)}

def headers(event, context):
    return {"statusCode": 200, "body": "{}",
            "headers": {"Content-Type": "application/json", "X-One": "1", "x-cased-ODDLY": "yes", "X-Bool": True},
            "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"], "X-One": ["2", "3"]}}

def fail(event, context):
    raise ValueError("not today")

ANSWERS = {
    "/echo": echo, "/echo/{name}": echo, "/version": echo, "/assumed": echo, "/headers": headers, "/error": fail,
    "/bytes": lambda *_: {"statusCode": 200, "isBase64Encoded": True, "body": "iVBORwD/gA==",
                          "headers": {"Content-Type": "image/png"}},
    "/long": lambda *_: {"statusCode": 200, "body": "0123456789" * 100_000},
    "/empty": lambda *_: {"statusCode": 204},
    "/nothing": lambda *_: None,
    "/malformed": lambda *_: {"status": 200, "text": "no such fields"},
    "/number": lambda *_: {"statusCode": "many", "body": "x"},
    "/exit": lambda *_: os._exit(3),
    "/slow": lambda *_: time.sleep(30),
}
"""
_FUNCTIONS: dict[str, dict[str, int]] = {"probe": {"Timeout": 30}, "slow": {"Timeout": 1}, "throttled": {}}
_ROUTES = {
    **dict.fromkeys(
        ("/echo", "/echo/{name}", "/assumed", "/headers", "/error", "/bytes", "/long", "/empty", "/nothing"), "probe"
    ),
    **dict.fromkeys(("/malformed", "/number", "/exit"), "probe"),
    "/version": "probe:live",
    "/slow": "slow",
    "/throttled": "throttled",
    "/missing": "missing",
}


@dataclass(frozen=True)
class Ask:
    """A request, the status that answers it, and the function that runs for it, if any does."""

    method: str
    path: str
    status: int
    runs: str | None = "probe"
    headers: Mapping[str, str] | list[tuple[str, str | bytes]] | None = None
    content: bytes | None = None


_PNG, _JSON, _TEXT = ({"Content-Type": kind} for kind in ("image/png", "application/json", "text/plain"))
_BROWSER = {"Origin": "http://localhost:3000"}
_UNICODE = '{"name": "콘서트 ✓ ünï"}'.encode()
_REQUESTS = {
    "an event without anything": Ask("GET", "/echo", 201),
    "query strings": Ask("GET", "/echo?a=1&a=2&b=%EC%BD%98&empty=", 201),
    "headers": Ask(
        "GET", "/echo", 201, headers=[("X-Twice", "1"), ("X-Twice", "2"), ("x-lower", "ü".encode("latin-1"))]
    ),
    "a unicode body": Ask("POST", "/echo", 201, headers=_JSON, content=_UNICODE),
    "a binary body": Ask("PUT", "/echo", 201, headers=_PNG, content=b"\xff\x00\xfe"),
    "a body that is no text": Ask("POST", "/echo", 201, headers=_TEXT, content=b"\xff\x00\xfe"),
    "a path parameter": Ask("DELETE", "/echo/row%2017?x=1", 201),
    "a version by its alias": Ask("GET", "/version", 201),
    "an assumed role": Ask("GET", "/assumed", 201),
    "answer headers": Ask("GET", "/headers", 200),
    "an answer in base64": Ask("GET", "/bytes", 200, headers={"Accept": "image/png"}),
    "base64 that nobody accepts": Ask("GET", "/bytes", 200, headers={"Accept": "application/json"}),
    "HEAD": Ask("HEAD", "/headers", 200),
    "a browser": Ask("GET", "/echo", 201, headers=_BROWSER),
    "a browser's preflight": Ask("OPTIONS", "/echo", 201, headers=_BROWSER | {"Access-Control-Request-Method": "POST"}),
    "a long answer": Ask("GET", "/long", 200),
    "an answer without a body": Ask("GET", "/empty", 204),
    "an error": Ask("GET", "/error", 502),
    "no answer": Ask("GET", "/nothing", 500),
    "a malformed answer": Ask("GET", "/malformed", 502),
    "a malformed status": Ask("GET", "/number", 502),
    "a function that ends its process": Ask("GET", "/exit", 502),
    "a function over its time": Ask("GET", "/slow", 502, "slow"),
    "a throttled function": Ask("GET", "/throttled", 502, None),
    "a function that does not exist": Ask("GET", "/missing", 502, None),
    "an unknown path": Ask("GET", "/nowhere", 403, None),
    "a path below one": Ask("GET", "/headers/more", 403, None),
    "an unknown method": Ask("PATCH", "/headers", 403, None),
    "a connection to be closed": Ask("GET", "/headers", 200, headers={"Connection": "close"}),
}
_RUNS = Counter(ask.runs for ask in _REQUESTS.values() if ask.runs)
_ERRORS = {"probe": 2, "slow": 1}
_VOLATILE_HEADERS = ("date", "x-amzn-requestid", "x-amz-apigw-id", "x-amzn-trace-id")
_VOLATILE = re.compile(
    r'("(?:requestId|extendedRequestId|requestTime|deploymentId|resourceId|X-Amzn-Trace-Id)": \[?"'
    r'|"requestTimeEpoch": )[^",}]*'
)
_VOLATILE_IN_LOGS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[\d.]+(?= ms)|\d+(?= MB)|\S+Z(?= )")


@dataclass
class Probed:
    """A LocalStack of the test's own."""

    instance: Instance
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return self.instance.url("localstack")

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=self.url, region_name="us-east-1", **keys)

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.url}{path}", timeout=60, trust_env=False).raise_for_status().json()

    def ask(self, ask: Ask) -> tuple[int, list[tuple[str, str]], str]:
        """The answer without what differs from call to call: status, sorted headers, body."""
        url = f"{self.url}/_aws/execute-api/{_API_ID}/v1{ask.path}"
        answer = httpx.request(ask.method, url, headers=ask.headers, content=ask.content, timeout=60, trust_env=False)
        headers = [
            (name.decode(), "…" if name.decode().lower() in _VOLATILE_HEADERS else value.decode("latin-1"))
            for name, value in answer.headers.raw
        ]
        body = answer.content.decode("utf-8", "backslashreplace").replace(
            f"{self.instance.ports['localstack']}", "PORT"
        )
        return answer.status_code, sorted(headers), _VOLATILE.sub(r"\1…", body)

    def logs(self, function: str) -> dict[str, list[str]]:
        """The lines in CloudWatch Logs of each version of a function."""
        found: dict[str, list[str]] = {}
        try:
            pages = (
                self.client("logs")
                .get_paginator("filter_log_events")
                .paginate(logGroupName=f"/aws/lambda/{function}", interleaved=True)
            )
            for event in (event for page in pages for event in page["events"]):
                version = event["logStreamName"].partition("[")[2].partition("]")[0]
                line = event["message"].replace(str(self.instance.dir), "…")
                found.setdefault(version, []).append(_VOLATILE_IN_LOGS.sub("…", line))
        except self.client("logs").exceptions.ResourceNotFoundException:
            pass
        return found

    def metrics(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The statistics of each metric of the probe's functions, by function and metric."""
        client, now = self.client("cloudwatch"), datetime.now(UTC)
        found = {}
        for metric in client.list_metrics(Namespace="AWS/Lambda")["Metrics"]:
            (dimension,) = metric["Dimensions"]
            if dimension["Value"] not in _FUNCTIONS:
                continue
            (point,) = client.get_metric_statistics(
                Namespace="AWS/Lambda",
                MetricName=metric["MetricName"],
                Dimensions=metric["Dimensions"],
                StartTime=now - timedelta(hours=1),
                EndTime=now + timedelta(hours=1),
                Period=7200,
                Statistics=["Sum", "SampleCount", "Average", "Minimum", "Maximum"],
            )["Datapoints"]
            found[dimension["Value"], metric["MetricName"]] = {
                name: value for name, value in point.items() if name != "Timestamp"
            }
        return found


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[dict[str, Probed]]:
    """`all` and `none`, with the probe deployed."""
    started: dict[str, Probed] = {}
    try:
        for switch in ("all", "none"):
            started[switch] = _start(switch, tmp_path_factory.mktemp(switch), free_port())
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(_deploy, started.values()))
        yield started
    finally:
        for each in started.values():
            each.process.kill()
            each.process.wait()


@pytest.fixture(scope="module")
def answers(stacks: dict[str, Probed]) -> dict[str, dict[str, Any]]:
    """What each LocalStack answers to each request, asked once and in the same order."""

    def ask_all(stack: Probed) -> dict[str, Any]:
        return {name: stack.ask(ask) for name, ask in _REQUESTS.items()}

    with ThreadPoolExecutor(2) as threads:
        return dict(zip(stacks, threads.map(ask_all, stacks.values()), strict=True))


def _start(switch: str, folder: Path, port: int) -> Probed:
    (folder / ".stack").mkdir()
    (folder / ".stack" / "tools").symlink_to(PROJECT_DIR / ".stack" / "tools")
    instance = Instance("probe", folder, ports={"localstack": port})
    instance.make_dirs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, switch)
        patch.setenv("DISABLE_BOTO_RETRIES", "1")  # LocalStack's client tries a throttled function for up to 15 s
        return Probed(instance, start_localstack(instance))


def _deploy(stack: Probed) -> None:
    wait_for(lambda: _is_up(stack), within_s=_WAIT_S)
    functions = stack.client("lambda")
    for name, settings in _FUNCTIONS.items():
        create_function(functions, name, _PROBE, **settings)
    version = functions.publish_version(FunctionName="probe")["Version"]
    functions.create_alias(FunctionName="probe", Name="live", FunctionVersion=version)
    functions.put_function_concurrency(FunctionName="throttled", ReservedConcurrentExecutions=0)
    apis = stack.client("apigateway")
    apis.create_rest_api(name="probe", tags={"_custom_id_": _API_ID})
    apis.put_rest_api(restApiId=_API_ID, mode="overwrite", body=json.dumps(_openapi()).encode())
    apis.create_deployment(restApiId=_API_ID, stageName="v1")


def _openapi() -> dict[str, Any]:
    def method(path: str, function: str) -> dict[str, Any]:
        integration = {
            "type": "aws_proxy",
            "httpMethod": "POST",
            "uri": f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{_LAMBDA}:{function}/invocations",
        }
        if path == "/assumed":
            integration["credentials"] = _ROLE
        return {"responses": {}, "x-amazon-apigateway-integration": integration}

    def item(path: str, function: str) -> dict[str, Any]:
        verbs = ("get", "head") if path == "/headers" else ("x-amazon-apigateway-any-method",)
        return {verb: method(path, function) for verb in verbs}

    return {
        "openapi": "3.0.1",
        "info": {"title": "probe", "version": "1"},
        "x-amazon-apigateway-binary-media-types": ["image/png"],
        "paths": {path: item(path, function) for path, function in _ROUTES.items()},
    }


def _is_up(stack: Probed) -> bool:
    assert stack.process.poll() is None, "LocalStack has ended"
    try:
        return bool(stack.get("/_localstack/health"))
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("name", _REQUESTS)
def test_patched_and_unpatched_answer_alike(name: str, answers: dict[str, dict[str, Any]]) -> None:
    status, headers, body = answers["none"][name]

    assert status == _REQUESTS[name].status, body
    assert answers["all"][name] == (status, headers, body)


@pytest.mark.parametrize("function", _RUNS)
@pytest.mark.usefixtures("answers")
def test_the_same_lines_reach_cloudwatch_logs(function: str, stacks: dict[str, Probed]) -> None:
    def all_reports(stack: Probed) -> dict[str, list[str]] | None:
        logs = stack.logs(function)
        reports = [line for lines in logs.values() for line in lines if line.startswith("REPORT")]
        return logs if len(reports) == _RUNS[function] else None

    patched, unpatched = (wait_for(lambda each=each: all_reports(each), within_s=_WAIT_S) for each in stacks.values())  # type: ignore[misc]

    assert patched == unpatched
    assert any("asked for /" in line for lines in patched.values() for line in lines)


@pytest.mark.usefixtures("answers")
def test_the_same_metrics_reach_cloudwatch(stacks: dict[str, Probed]) -> None:
    one_each = {"Minimum": 1.0, "Maximum": 1.0, "Average": 1.0, "Unit": "None"}
    wanted = {
        (function, metric): {"Sum": float(count), "SampleCount": float(count), **one_each}
        for metric, counts in (("Invocations", _RUNS), ("Errors", _ERRORS))
        for function, count in counts.items()
    }

    for stack in stacks.values():
        wait_for(lambda stack=stack: _total(stack.metrics()) >= _total(wanted), within_s=_WAIT_S)  # type: ignore[misc]
        assert stack.metrics() == wanted


def _total(metrics: Mapping[tuple[str, str], Mapping[str, Any]]) -> float:
    return sum(float(each["Sum"]) for each in metrics.values())


def test_the_switch_decides_whose_code_runs(stacks: dict[str, Probed]) -> None:
    """Without this, two LocalStacks of one kind would pass for alike."""
    ours = {
        switch: {
            name: {place: module.startswith("encore_lambda_executor.") for place, module in places.items()}
            for name, places in stack.get("/_encore/patches").items()
        }
        for switch, stack in stacks.items()
    }

    assert set(ours["all"]) == set(ours["none"]) == set(SPEED)
    for name in SPEED:
        assert ours["all"][name] and all(ours["all"][name].values()), ours["all"]
        assert not any(ours["none"][name].values()), ours["none"]


@pytest.mark.usefixtures("answers")
def test_only_without_patches_is_each_invocation_a_metric_of_its_own(stacks: dict[str, Probed]) -> None:
    """The switch seen from outside: LocalStack's raw list of metrics has single values but no statistic values."""

    def single_values(stack: Probed) -> int:
        return sum(each["ns"] == "AWS/Lambda" for each in stack.get("/_aws/cloudwatch/metrics/raw")["metrics"])

    wait_for(
        lambda: single_values(stacks["none"]) == _RUNS.total() + sum(_ERRORS.values()),
        within_s=_WAIT_S,
    )
    assert single_values(stacks["all"]) == 0


def test_what_a_replaced_version_has_printed_is_not_lost(stacks: dict[str, Probed]) -> None:
    stack, functions = stacks["all"], stacks["all"].client("lambda")
    create_function(functions, "replaced", "def handler(event, context): print('call', event)")
    for number in range(3):  # the first goes at once, the others wait for their second to pass
        functions.invoke(FunctionName="replaced", Payload=str(number))

    functions.update_function_code(FunctionName="replaced", ZipFile=zipped("def handler(event, context): pass"))

    def printed() -> bool:
        return [line for lines in stack.logs("replaced").values() for line in lines if line.startswith("call")] == [
            "call 0\n",
            "call 1\n",
            "call 2\n",
        ]

    wait_for(printed, within_s=_WAIT_S)


def test_what_was_counted_is_put_when_localstack_ends() -> None:
    """In LocalStack's own Python: the patch, a count, LocalStack's shutdown."""
    done = subprocess.run(
        [PROJECT_DIR / ".stack/tools/localstack-venv/bin/python", "-c", _COUNT_AND_SHUT_DOWN],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split() == ["000000000000", "sample", "Invocations", "1", "Errors", "1"], done.stderr


_COUNT_AND_SHUT_DOWN = """
from encore_lambda_executor.patches import metrics_in_batches

def put(scope, data):
    print(scope[0], data[0]["Dimensions"][0]["Value"])
    for each in data:
        print(each["MetricName"], each["StatisticValues"]["Sum"])

metrics_in_batches._put = put
metrics_in_batches.apply()

from localstack.runtime.shutdown import SHUTDOWN_HANDLERS
from localstack.services.lambda_.invocation import version_manager

version_manager.record_cw_metric_error(function_name="sample", account_id="000000000000", region_name="us-east-1")
SHUTDOWN_HANDLERS.run()
"""
