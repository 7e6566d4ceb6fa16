"""Steps 1 and 2 over HTTP: statuses, headers and problems on real servers."""

import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from booking.queue import end_turn, set_sold_out
from booking.queue.tokens import Token, sign_token
from support.client import assert_problem

Step = Callable[..., httpx.Response]


@pytest.fixture
def step1(http: httpx.Client) -> Step:
    def join(body: Any) -> httpx.Response:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return http.post("queue/tokens", headers={"Content-Type": "application/json"}, **content)

    return join


@pytest.fixture
def step2(http: httpx.Client) -> Step:
    def ask(method: str, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return http.request(method, "queue/tokens/current", headers=headers)

    return ask


def test_join_poll_and_leave(open_line, step1, step2):
    line = open_line(capacity=1)
    first = step1({"concert_id": line.concert_id, "user_id": "ann"})
    assert first.status_code == 201
    assert set(first.json()) == {"token", "state", "position", "ahead", "eta_s", "pass", "pass_expires_at"}
    assert "Retry-After" not in first.headers
    waiting = step1({"concert_id": line.concert_id, "user_id": "bob"})
    assert waiting.status_code == 201
    assert waiting.json().keys() == {"token", "state", "position", "ahead", "eta_s", "poll_after_ms"}
    assert step1({"concert_id": line.concert_id, "user_id": "bob"}).status_code == 200
    polled = step2("GET", waiting.json()["token"])
    assert (polled.status_code, polled.json()["position"]) == (200, 1)
    assert polled.headers["Retry-After"] == str(math.ceil(polled.json()["poll_after_ms"] / 1000))
    assert step2("DELETE", first.json()["token"]).status_code == 204
    assert step2("GET", waiting.json()["token"]).json()["state"] == "admitted"
    over = step2("GET", first.json()["token"])
    assert_problem(over, 410, "turn-over")


def test_a_draw_collects_people_before_its_opening(open_line, step1, step2):
    line = open_line(opens_in_s=3600)
    refused = step1({"concert_id": line.concert_id, "user_id": "ann"})
    assert_problem(refused, 409, "sales-not-open")
    line.gate("draw")
    joined = step1({"concert_id": line.concert_id, "user_id": "ann"})
    assert joined.status_code == 201
    body = joined.json()
    assert (body["state"], body["position"], body["ahead"], body["eta_s"]) == ("waiting", None, None, None)
    assert body["opens_at"] == refused.json()["opens_at"]
    assert int(joined.headers["Retry-After"]) == -(-body["poll_after_ms"] // 1000) >= 5
    assert step1({"concert_id": line.concert_id, "user_id": "ann"}).status_code == 200
    polled = step2("GET", body["token"])
    assert (polled.status_code, polled.json()["position"]) == (200, None)
    assert step2("DELETE", body["token"]).status_code == 204
    assert_problem(step2("GET", body["token"]), 410, "turn-over")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
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
        b'{"concert_id": 1, "user_id": "\\ud800"}',
    ],
)
def test_malformed_bodies_are_refused(step1, body):
    assert_problem(step1(body), 400, "bad-request")


def test_unknown_concert(step1):
    refused = step1({"concert_id": 2**62, "user_id": "u"})
    assert_problem(refused, 404, "concert-unknown")


@pytest.mark.parametrize("token", [None, "nonsense", "t.k1.7"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_bad_tokens_are_refused(step2, method, token):
    refused = step2(method, token)
    assert_problem(refused, 401, "token-invalid")


def test_expired_token_is_refused(open_line, step2):
    refused = step2("GET", sign_token(Token(open_line().concert_id, "p" * 22, 1, 1, 1)))
    assert_problem(refused, 401, "token-expired")


def test_pass_is_no_token(open_line, step2):
    assert step2("GET", open_line().join("ann").shop_pass).status_code == 401


def test_redis_away(open_line, step1, step2, use_settings):
    line = open_line()
    token = line.join("ann").token
    with use_settings(queue_redis_url="redis://127.0.0.1:1/0"):
        for refused in (step1({"concert_id": line.concert_id, "user_id": "u"}), step2("GET", token)):
            assert_problem(refused, 503, "line-away")
            assert int(refused.headers["Retry-After"]) >= 1
        end_turn(line.concert_id, "p" * 22, "a pass", "paid")
        set_sold_out(line.concert_id, True)


def test_database_away_refuses_only_a_line_that_must_be_restored(open_line, step1, use_settings):
    line = open_line()
    line.join("ann")
    with use_settings(database_url="postgresql://encore@127.0.0.1:1/encore"):
        assert step1({"concert_id": line.concert_id, "user_id": "bob"}).status_code == 201
        line.forget()
        for _ in range(2):
            assert step1({"concert_id": line.concert_id, "user_id": "cid"}).status_code == 503
    assert step1({"concert_id": line.concert_id, "user_id": "cid"}).status_code == 201
