"""Steps 1 and 2 as functions: statuses, headers and problems over real servers."""

import importlib.util
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from booking.platform.settings import settings
from booking.queue import end_turn, set_sold_out
from booking.queue.tokens import Token, sign_token

_FUNCTIONS = Path(__file__).parents[3] / "functions"


class Answer:
    def __init__(self, response: dict[str, Any]) -> None:
        self.status_code: int = response["statusCode"]
        self.headers = {name: values[0] for name, values in response["multiValueHeaders"].items()} | response["headers"]
        self.body: str = response["body"]

    @property
    def json_body(self) -> Any:
        return json.loads(self.body)


def _client(name: str) -> Callable[..., Answer]:
    """Calls a function's app with the event that API Gateway's proxy integration sends."""
    spec = importlib.util.spec_from_file_location(f"queue_{name}", _FUNCTIONS / name / "app.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def request(method: str, path: str, token: str | None = None, body: Any = None) -> Answer:
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        event = {
            "resource": path,
            "path": path,
            "httpMethod": method,
            "headers": headers,
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            "multiValueQueryStringParameters": None,
            "pathParameters": None,
            "stageVariables": None,
            "body": body if body is None or isinstance(body, str) else json.dumps(body),
            "isBase64Encoded": False,
            "requestContext": {"resourcePath": path, "httpMethod": method, "identity": {}},
        }
        return Answer(module.app(event, None))

    return request


@pytest.fixture(scope="module")
def step1():
    request = _client("step1_join_queue")
    return lambda body: request("POST", "/queue/tokens", body=body)


@pytest.fixture(scope="module")
def step2():
    request = _client("step2_queue_position")
    return lambda method, token=None: request(method, "/queue/tokens/current", token)


def test_join_poll_and_leave(open_line, step1, step2):
    line = open_line(capacity=1)
    first = step1({"concert_id": line.concert_id, "user_id": "ann"})
    assert first.status_code == 201
    assert set(first.json_body) == {"token", "state", "position", "ahead", "eta_s", "pass", "pass_expires_at"}
    assert "Retry-After" not in first.headers
    waiting = step1({"concert_id": line.concert_id, "user_id": "bob"})
    assert waiting.status_code == 201
    assert waiting.json_body.keys() == {"token", "state", "position", "ahead", "eta_s", "poll_after_ms"}
    assert step1({"concert_id": line.concert_id, "user_id": "bob"}).status_code == 200
    polled = step2("GET", waiting.json_body["token"])
    assert (polled.status_code, polled.json_body["position"], polled.headers["Retry-After"]) == (200, 1, "2")
    assert step2("DELETE", first.json_body["token"]).status_code == 204
    assert step2("GET", waiting.json_body["token"]).json_body["state"] == "admitted"
    over = step2("GET", first.json_body["token"])
    assert (over.status_code, over.json_body["type"]) == (410, "/problems/turn-over")


@pytest.mark.parametrize(
    "body",
    [
        None,
        "{",
        [],
        {},
        {"concert_id": 1},
        {"concert_id": "1", "user_id": "u"},
        {"concert_id": 0, "user_id": "u"},
        {"concert_id": 2**63, "user_id": "u"},
        {"concert_id": 1.5, "user_id": "u"},
        {"concert_id": 1, "user_id": ""},
        {"concert_id": 1, "user_id": "u" * 201},
        {"concert_id": 1, "user_id": None},
        {"concert_id": 1, "user_id": "u", "place": 1},
        '{"concert_id": 1, "user_id": "\\ud800"}',
    ],
)
def test_malformed_bodies_are_refused(step1, body):
    refused = step1(body)
    assert refused.status_code == 400, refused.body
    assert refused.headers["Content-Type"] == "application/problem+json"


def test_unknown_concert(step1):
    refused = step1({"concert_id": 2**62, "user_id": "u"})
    assert (refused.status_code, refused.json_body["type"]) == (404, "/problems/concert-unknown")


@pytest.mark.parametrize("token", [None, "nonsense", "t.k1.7", "é"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_bad_tokens_are_refused(step2, method, token):
    refused = step2(method, token)
    assert (refused.status_code, refused.json_body["type"]) == (401, "/problems/token-invalid")


def test_expired_token_is_refused(open_line, step2):
    refused = step2("GET", sign_token(Token(open_line().concert_id, "p" * 22, 1, 1, 1)))
    assert (refused.status_code, refused.json_body["type"]) == (401, "/problems/token-expired")


def test_pass_is_no_token(open_line, step2):
    assert step2("GET", open_line().join("ann").shop_pass).status_code == 401


@contextmanager
def _setting(variable: str, value: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, value)
        settings.cache_clear()
        yield
    settings.cache_clear()


def test_redis_away(open_line, step1, step2):
    line = open_line()
    token = line.join("ann").token
    with _setting("ENCORE_QUEUE_REDIS_URL", "redis://127.0.0.1:1/0"):
        for refused in (step1({"concert_id": line.concert_id, "user_id": "u"}), step2("GET", token)):
            assert (refused.status_code, refused.json_body["type"]) == (503, "/problems/line-away")
            assert int(refused.headers["Retry-After"]) >= 1
        end_turn(line.concert_id, "p" * 22, "a pass", "paid")
        set_sold_out(line.concert_id, True)


def test_database_away_refuses_only_a_line_that_must_be_restored(open_line, step1):
    line = open_line()
    line.join("ann")
    with _setting("ENCORE_DATABASE_URL", "postgresql://encore@127.0.0.1:1/encore"):
        assert step1({"concert_id": line.concert_id, "user_id": "bob"}).status_code == 201
        line.forget()
        for _ in range(2):
            assert step1({"concert_id": line.concert_id, "user_id": "cid"}).status_code == 503
    assert step1({"concert_id": line.concert_id, "user_id": "cid"}).status_code == 201
