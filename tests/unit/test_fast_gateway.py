"""The fast gateway: API Gateway's events and answers around real Chalice apps, in threads, under granian."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from textwrap import dedent
from threading import Barrier
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from encore_stack.deployment.template import Template
from fast_gateway import functions, proxy
from fast_gateway.__main__ import load_on
from fast_gateway.gateway import Gateway
from fast_gateway.routing import Router
from fast_gateway.settings import read_settings, read_template
from support.waiting import wait_for

PROJECT = Path(__file__).parents[2]

SHOP = """
    import os, sys
    from chalice.app import Chalice, Response

    app = Chalice(os.environ["POWERTOOLS_SERVICE_NAME"], configure_logs=False)
    app.gate = lambda: None

    @app.route("/things/{thing_id}", methods=["GET", "POST"], content_types=["application/json", "text/plain"])
    def thing(thing_id):
        app.gate()
        request = app.current_request
        return {
            "app": app.app_name,
            "id": thing_id,
            "seen": request.uri_params["thing_id"],
            "event": request.to_original_event(),
            "body": request.raw_body.decode(),
            "request_id": app.lambda_context.aws_request_id,
            "left_ms": app.lambda_context.get_remaining_time_in_millis(),
        }

    @app.route("/raises")
    def raises():
        raise ValueError("secret detail")

    @app.route("/not-modified")
    def not_modified():
        return Response(body="", status_code=304, headers={"ETag": '"e"'})

    @app.route("/cookies")
    def cookies():
        return Response(body="ok", headers={"Set-Cookie": ["a=1", "b=2"], "Content-Type": "text/plain"})
"""

BAD = """
    import sys

    def handler(event, context):
        kind = event["queryStringParameters"]["kind"]
        if kind == "exit":
            sys.exit(3)
        if kind == "raise":
            raise RuntimeError("boom")
        return {"none": None, "list": [], "status": {"statusCode": "x"}, "body": {"statusCode": 200, "body": {}},
                "split": {"statusCode": 200, "headers": {"a": "b\\r\\nc: d"}}}[kind]
"""


class Fixture:
    """A gateway over functions written for the test."""

    def __init__(self, folder: Path, **sources: str) -> None:
        self.functions = []
        routes = []
        for name, source in sources.items():
            file = folder / name / "app.py"
            file.parent.mkdir(parents=True)
            file.write_text(dedent(source), encoding="utf-8")
            own = [SimpleNamespace(method=m, path=p, function=name) for m, p in ROUTES[name]]
            routes += own
            self.functions.append(
                SimpleNamespace(
                    name=name,
                    function_name=f"encore-{name}",
                    handler="app.handler" if name == "bad" else "app.app",
                    handler_file=file,
                    timeout_s=29,
                    memory_mb=256,
                    routes=own,
                )
            )
        self.gateway = Gateway(cast(Template, SimpleNamespace(functions=self.functions, routes=routes)))

    def call(self, method: str, path: str, body: bytes = b"", query: str = "", **headers: str) -> "Answer":
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "127.0.0.1:8000",
            "wsgi.input": BytesIO(body),
            **headers,
        }
        if body:
            environ |= {"CONTENT_LENGTH": str(len(body))}
        answer = Answer()
        answer.body = b"".join(self.gateway(environ, answer.start))
        return answer


class Answer:
    status = 0
    headers: list[tuple[str, str]]
    body = b""

    def start(self, line: str, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = int(line[:3]), headers

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


ROUTES = {
    "shop": [
        ("GET", "/things/{thing_id}"),
        ("POST", "/things/{thing_id}"),
        ("GET", "/raises"),
        ("GET", "/not-modified"),
        ("GET", "/cookies"),
    ],
    "other": [("GET", "/others/{thing_id}")],
    "bad": [("GET", "/bad")],
    "broken": [("GET", "/broken")],
}


@pytest.fixture
def shop(tmp_path: Path) -> Fixture:
    return Fixture(tmp_path, shop=SHOP, bad=BAD)


# --- events ---------------------------------------------------------------------------------------------------------


def test_the_event_is_what_api_gateway_sends(shop: Fixture) -> None:
    answer = shop.call(
        "POST",
        "/things/a b\u00e2\u0082\u00ac",  # a space and a euro sign, as WSGI hands UTF-8 over
        b'{"a": 1}',
        "x=1&x=2&empty=&y=%20z",
        HTTP_AUTHORIZATION="Bearer t",
        HTTP_IDEMPOTENCY_KEY="k",
        HTTP_USER_AGENT="test",
        CONTENT_TYPE="application/json",
    )
    assert answer.status == 200
    seen = answer.json
    event = seen["event"]
    assert event["resource"] == event["requestContext"]["resourcePath"] == "/things/{thing_id}"
    assert event["path"] == "/things/a b€"
    assert event["requestContext"]["path"] == "/v1/things/a b€"
    assert event["pathParameters"] == {"thing_id": "a b€"} == {"thing_id": seen["seen"]}
    assert event["queryStringParameters"] == {"x": "2", "empty": "", "y": " z"}
    assert event["multiValueQueryStringParameters"] == {"x": ["1", "2"], "empty": [""], "y": [" z"]}
    assert event["headers"] == {
        "Host": "127.0.0.1:8000",
        "Authorization": "Bearer t",
        "Idempotency-Key": "k",
        "User-Agent": "test",
        "Content-Type": "application/json",
        "Content-Length": "8",
    }
    assert event["multiValueHeaders"]["Authorization"] == ["Bearer t"]
    assert (event["body"], event["isBase64Encoded"], event["stageVariables"]) == ('{"a": 1}', False, None)
    context = event["requestContext"]
    assert (context["stage"], context["httpMethod"], context["identity"]["sourceIp"]) == ("v1", "POST", "127.0.0.1")
    assert seen["request_id"] == context["requestId"] == answer.header("x-amzn-requestid")[0]
    assert 28_000 < seen["left_ms"] <= 29_000


def test_groups_without_content_are_none(shop: Fixture) -> None:
    event = shop.call("GET", "/things/1").json["event"]
    assert event["body"] is event["queryStringParameters"] is event["multiValueQueryStringParameters"] is None


def test_a_body_that_is_no_utf8_does_no_harm(shop: Fixture) -> None:
    answer = shop.call("POST", "/things/1", b"\xff\x00", CONTENT_TYPE="text/plain")
    assert (answer.status, answer.json["body"]) == (200, "\ufffd\x00")


def test_a_body_over_the_limit_is_413(shop: Fixture) -> None:
    told = shop.call("POST", "/things/1", b"x", CONTENT_TYPE="text/plain")
    assert told.status == 200
    huge = b"x" * (proxy.BODY_BYTES_MAX + 1)
    assert shop.call("POST", "/things/1", huge).status == 413
    untold = {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input": BytesIO(huge)}
    assert shop.call("POST", "/things/1", **cast(Any, untold)).status == 413


# --- routing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/nothing"), ("DELETE", "/things/1"), ("GET", "/things"), ("GET", "/things/1/2"),
     ("GET", "/things/"), ("GET", "things/1"), ("GET", "*"), ("HEAD", "/things/1"), ("OPTIONS", "/things/1")],
)  # fmt: skip
def test_an_unknown_route_is_answered_as_api_gateway_does(shop: Fixture, method: str, path: str) -> None:
    answer = shop.call(method, path)
    assert (answer.status, answer.json) == (403, {"message": "Missing Authentication Token"})


def test_literals_come_before_parameters() -> None:
    router = Router([("GET", "/a/{x}", 1), ("GET", "/a/b", 2), ("POST", "/a/{x}", 3), ("GET", "/{y}/b/c", 4)])
    found = [router.find(m, p) for m, p in (("GET", "/a/z"), ("GET", "/a/b"), ("POST", "/a/b"), ("GET", "/a/b/c"))]
    assert [(f.target, f.path_parameters) for f in found if f] == [
        (1, {"x": "z"}),
        (2, {}),
        (3, {"x": "b"}),
        (4, {"y": "a"}),
    ]


def test_every_route_of_the_template_is_found() -> None:
    template = read_template({})
    router = Router((r.method, r.path, r.function) for r in template.routes)
    assert template.routes
    for route in template.routes:
        found = router.find(route.method, route.path.replace("{", "").replace("}", ""))
        assert found and (found.target, found.resource_path) == (route.function, route.path)


# --- answers --------------------------------------------------------------------------------------------------------


def test_a_view_that_raises_is_chalices_500_without_detail(shop: Fixture) -> None:
    answer = shop.call("GET", "/raises")
    assert answer.status == 500
    assert b"secret detail" not in answer.body


@pytest.mark.parametrize("kind", ["exit", "raise", "none", "list", "status", "body", "split", "unknown"])
def test_what_a_handler_does_wrong_is_a_502(shop: Fixture, kind: str) -> None:
    answer = shop.call("GET", "/bad", query=f"kind={kind}")
    assert (answer.status, answer.json) == (502, {"message": "Internal server error"})


def test_a_function_that_cannot_be_loaded_harms_only_itself(tmp_path: Path) -> None:
    gateway = Fixture(tmp_path, shop=SHOP, broken="import sys; sys.exit(1)")
    assert gateway.call("GET", "/broken").status == 502
    assert gateway.call("GET", "/things/1").status == 200
    health = gateway.call("GET", "/healthz")
    assert (health.status, "broken" in health.json["message"]) == (200, True)


def test_no_body_and_no_length_with_304(shop: Fixture) -> None:
    answer = shop.call("GET", "/not-modified")
    assert (answer.status, answer.body, answer.header("etag"), answer.header("content-length")) == (
        304,
        b"",
        ['"e"'],
        [],
    )


def test_a_header_can_have_several_values(shop: Fixture) -> None:
    assert shop.call("GET", "/cookies").header("set-cookie") == ["a=1", "b=2"]


def test_base64_answers_are_bytes() -> None:
    assert proxy.answer_of({"statusCode": 200, "isBase64Encoded": True, "body": "AP8="})[2] == b"\x00\xff"
    with pytest.raises(proxy.MalformedProxyResponse):
        proxy.answer_of({"statusCode": 200, "isBase64Encoded": True, "body": "%"})


def test_each_function_has_its_own_module_and_service_name(tmp_path: Path) -> None:
    before = os.environ.get("POWERTOOLS_SERVICE_NAME")
    gateway = Fixture(tmp_path, shop=SHOP, other=SHOP.replace("/things/", "/others/"))
    assert gateway.call("GET", "/things/1").json["app"] == "shop"
    assert gateway.call("GET", "/others/1").json["app"] == "other"
    assert os.environ.get("POWERTOOLS_SERVICE_NAME") == before


# --- threads --------------------------------------------------------------------------------------------------------


def things_seen_side_by_side(gateway: Fixture) -> list[tuple[str, str]]:
    """(thing asked for, thing seen by the view) of two requests that are in the same view at the same moment."""
    app = cast(Any, gateway.gateway.targets["shop"].handler)
    app.gate = Barrier(2, timeout=5).wait

    def ask(thing: str) -> tuple[str, str]:
        return thing, str(gateway.call("GET", f"/things/{thing}").json["seen"])

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(ask, ["1", "2"]))


def test_two_requests_at_once_do_not_mix(shop: Fixture) -> None:
    for _ in range(20):
        assert all(asked == seen for asked, seen in things_seen_side_by_side(shop))


def test_negative_control_plain_chalice_mixes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "make_thread_safe", lambda app: None)
    assert any(asked != seen for asked, seen in things_seen_side_by_side(Fixture(tmp_path, shop=SHOP)))


# --- the real server ------------------------------------------------------------------------------------------------


class Server:
    """`python -m fast_gateway` on a free port, with the project's own template and functions."""

    def __init__(self, **environment: str) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fast_gateway"],
            env=os.environ
            | {
                "PYTHONPATH": f"{PROJECT}/localstack{os.pathsep}{PROJECT}/layers/booking",
                "ENCORE_GATEWAY_PORT": str(port),
                "ENCORE_GATEWAY_THREADS": "2",
                "HTTP_X_LEAK": "from the environment",
            }
            | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait_until_up()

    def wait_until_up(self, timeout_s: float = 20) -> None:
        """granian tells nobody when it listens: ask until it answers."""
        deadline = monotonic() + timeout_s
        while True:
            try:
                httpx.get(f"{self.url}/nothing", trust_env=False)
                return
            except httpx.TransportError:
                assert monotonic() < deadline and self.process.poll() is None
                sleep(0.02)

    def workers(self) -> set[int]:
        pid = self.process.pid
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    if server.process.poll() is None:
        server.stop()


def test_the_projects_functions_load(server: Server) -> None:
    health = httpx.get(f"{server.url}/healthz", trust_env=False)
    assert (health.status_code, health.json()) == (200, {"message": "ok"})


def test_unknown_routes_and_huge_bodies_over_http(server: Server) -> None:
    assert httpx.get(f"{server.url}/nothing", trust_env=False).status_code == 403
    answer = httpx.post(f"{server.url}/reservations", content=b"x" * (proxy.BODY_BYTES_MAX + 1), trust_env=False)
    assert answer.status_code == 413


def test_a_taken_port_is_a_clear_failure(server: Server) -> None:
    environment = os.environ | {"ENCORE_GATEWAY_PORT": server.url.rsplit(":", 1)[1]}
    environment |= {"PYTHONPATH": f"{PROJECT}/localstack{os.pathsep}{PROJECT}/layers/booking"}
    command = [sys.executable, "-m", "fast_gateway"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "in use" in done.stdout, "panic" in done.stderr) == (1, True, False)


def test_each_worker_keeps_to_a_cpu_and_one_that_replaces_a_killed_one_takes_its_place(server: Server) -> None:
    def places() -> list[list[tuple[list[int], int]]]:
        """Of each worker: on which CPUs its threads are, and how they are scheduled; nothing of one that starts."""
        found = []
        for worker in server.workers():
            threads = [int(thread.name) for thread in Path(f"/proc/{worker}/task").iterdir()]
            kept = {(tuple(os.sched_getaffinity(thread)), os.sched_getscheduler(thread)) for thread in threads}
            found.append([(sorted(cpus), policy) for cpus, policy in kept] if len(threads) > 1 else [])
        return sorted(found)

    cpus = sorted(os.sched_getaffinity(0))
    expected = sorted([[([cpus[0]], os.SCHED_BATCH)], [([cpus[1 % len(cpus)]], os.SCHED_BATCH)]])
    wait_for(places, lambda now: now == expected)
    before = server.workers()
    for worker in before:  # both at once: granian gives up when one dies again within seconds
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: server.workers() - before, lambda new: len(new) >= 2)
    wait_for(places, lambda now: now == expected)
    server.wait_until_up()


def test_a_worker_serves_where_a_cpu_of_its_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    for name in ("sched_setaffinity", "sched_setscheduler"):
        monkeypatch.setattr(os, name, refuse)
    assert load_on(0, lambda: "the application") == "the application"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_stops_cleanly(server: Server) -> None:
    assert server.stop() == 0


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="ENCORE_GATEWAY_THREADS"):
        read_settings({"ENCORE_GATEWAY_THREADS": "many"})
    assert (read_settings({}).workers, read_settings({}).threads, read_settings({}).connections) == (2, 512, 16)
