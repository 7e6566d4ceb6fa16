"""A person at the HTTP API, for whatever base URL or transport a test gives."""

import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Person:
    """Somebody who walks the seven steps; raises AssertionError where a step that must succeed does not."""

    http: httpx.Client
    user_id: str = field(default_factory=lambda: secrets.token_hex(16))
    token: str = ""
    shop_pass: str = ""

    def join(self, concert_id: int) -> "Person":
        """Join and be let in: the line of a test's concert is empty."""
        response = self.http.post("queue/tokens", json={"concert_id": concert_id, "user_id": self.user_id})
        assert response.status_code in (200, 201), response.text
        self.token = response.json()["token"]
        self.shop_pass = response.json().get("pass", "")
        return self

    @property
    def with_token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def with_pass(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.shop_pass}"}

    def reserve(self, schedule_id: int, seats: list[int], key: str | None = None) -> httpx.Response:
        return self.ask(schedule_id, {"seats": seats}, key)

    def ask(self, schedule_id: int, asked: dict[str, Any], key: str | None = None) -> httpx.Response:
        """Reserve what is ``asked`` for: ``{"best": 2}``."""
        return self.http.post(
            "reservations",
            json={"schedule_id": schedule_id, **asked},
            headers=self.with_pass | {"Idempotency-Key": key or secrets.token_hex(16)},
        )

    def pay(self, reservation_id: str, method: str = "card", key: str | None = None) -> httpx.Response:
        return self.http.post(
            f"reservations/{reservation_id}/payments",
            json={"method": method},
            headers=self.with_pass | {"Idempotency-Key": key or secrets.token_hex(16)},
        )

    def show(self, reservation_id: str) -> httpx.Response:
        return self.http.get(f"reservations/{reservation_id}", headers=self.with_token)


def assert_problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The answer is an RFC 9457 problem of this status and type; returns its body."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"/problems/{slug}"
    assert problem["status"] == status
    assert problem["title"]
    return problem
