"""The requests of each step and floor, ready to be sent: as bytes for wrk, as a WSGI environ for a call in process."""

import io
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.stage import LINE_CONCERT_ID, SHOP_CONCERT_ID, SHOP_SCHEDULE_ID, Stage, pass_of

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Request:
    """One HTTP request to the API."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def raw(self, prefix: str = "") -> bytes:
        """The request as it goes over the wire, below the path ``prefix``."""
        headers = {"Host": "127.0.0.1", "Content-Length": str(len(self.body)), **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{self.method} {prefix}{self.path} HTTP/1.1\r\n{head}\r\n".encode() + self.body

    def environ(self) -> dict[str, Any]:
        """The request as a WSGI server hands it over."""
        headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
        path, _, query = self.path.partition("?")
        return {
            "REQUEST_METHOD": self.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "127.0.0.1",
            "CONTENT_TYPE": headers.pop("HTTP_CONTENT_TYPE", ""),
            "CONTENT_LENGTH": str(len(self.body)),
            "wsgi.input": io.BytesIO(self.body),
            **headers,
        }


MakeRequests = Callable[[Stage, int], list[Request]]


def get(path: str, *, with_pass: bool = False) -> MakeRequests:
    """The same GET again and again, by somebody with a pass of the shop's concert where one is needed."""

    def make(stage: Stage, count: int) -> list[Request]:
        headers = bearer(pass_of("bench-reader", SHOP_CONCERT_ID, "bench-reader")) if with_pass else {}
        return [Request("GET", path, headers)]

    return make


def join(stage: Stage, count: int) -> list[Request]:
    """People who join a line for the first time."""
    bodies = ({"concert_id": LINE_CONCERT_ID, "user_id": user_id} for user_id in stage.new_user_ids(count))
    return [Request("POST", "/queue/tokens", JSON, json.dumps(body).encode()) for body in bodies]


def poll(stage: Stage, count: int) -> list[Request]:
    """A thousand people in the line who look where they are."""
    return [Request("GET", "/queue/tokens/current", bearer(token)) for token in stage.tokens(1_000)]


def reserve(stage: Stage, count: int) -> list[Request]:
    """One seat each, each seat once."""
    return [
        Request(
            "POST",
            "/reservations",
            {**JSON, **bearer(seat.shop_pass()), "Idempotency-Key": uuid.uuid4().hex},
            json.dumps({"schedule_id": seat.schedule_id, "seats": [seat.number]}).encode(),
        )
        for seat in stage.take_seats(count)
    ]


def pay(stage: Stage, count: int) -> list[Request]:
    """Payments of reservations that have just been made, by a card that is good."""
    return [
        Request(
            "POST",
            f"/reservations/{held.reservation_id}/payments",
            {**JSON, **bearer(held.shop_pass()), "Idempotency-Key": uuid.uuid4().hex},
            b'{"method": "card"}',
        )
        for held in stage.hold(count)
    ]


def bearer(paper: str) -> dict[str, str]:
    """The header that carries a token or a pass."""
    return {"Authorization": f"Bearer {paper}"}


STEPS: dict[str, MakeRequests] = {
    "step1_join_queue": join,
    "step2_queue_position": poll,
    "step3_concerts": get("/concerts?limit=20"),
    "step4_schedules": get(f"/concerts/{SHOP_CONCERT_ID}/schedules"),
    "step5_seats": get(f"/schedules/{SHOP_SCHEDULE_ID}/seats", with_pass=True),
    "step6_reserve": reserve,
    "step7_pay": pay,
}
FLOORS: dict[str, MakeRequests] = {name: get(f"/floors/{name}") for name in ("empty", "redis-get", "redis-lua")}
