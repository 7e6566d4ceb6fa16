"""The simulated gateways, as a payment client meets them: a real process, real sockets, a real book."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from encore_stack.instance import Instance
from encore_stack.parts import Unhealthy, part_named

LOCALSTACK = Path(__file__).parents[2] / "localstack"


class Gateway:
    """One gateway process and an HTTP client of it."""

    def __init__(self, book: Path, port: int) -> None:
        command = [
            sys.executable,
            "-m",
            "payment_gateways",
            "--name",
            "danal",
            "--port",
            str(port),
            "--book",
            str(book),
        ]
        self.process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": str(LOCALSTACK)}, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.listening = json.loads(self.process.stdout.readline())
        self.url: str = self.listening["url"]
        self.panel = httpx.Client(base_url=self.listening["panel_url"], trust_env=False)
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=10)

    def pay(self, key: str, **changes: Any) -> httpx.Response:
        return self.http.post("/v1/payments", json=order(key) | changes)

    def cancel(self, key: str) -> httpx.Response:
        return self.http.post(f"/v1/payments/{key}/cancel")

    def status_of(self, key: str) -> str:
        return str(self.panel.get(f"/v1/payments/{key}").json()["status"])

    def faults(self, **faults: Any) -> None:
        self.panel.put("/_faults", json=faults).raise_for_status()

    def well(self) -> None:
        self.panel.delete("/_faults").raise_for_status()

    def book(self, **params: Any) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.panel.get("/_book", params=params).json()["entries"]
        return entries

    def gets_no_answer(self, method: str, path: str, **request: Any) -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.request(method, self.url + path, timeout=0.2, trust_env=False, **request)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return self.process.wait(timeout=10)


def order(key: str) -> dict[str, Any]:
    return {"key": key, "order_id": f"order-{key}", "amount": 143_000, "currency": "KRW", "method": "card"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []

    def start(book: Path | None = None, port: int | None = None) -> Gateway:
        gateway = Gateway(book or tmp_path_factory.mktemp("book"), port or free_port())
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.stop()


@pytest.fixture(scope="module")
def shared(start: Callable[..., Gateway]) -> Gateway:
    return start()


@pytest.fixture
def gateway(shared: Gateway) -> Iterator[Gateway]:
    yield shared
    shared.well()


def test_says_that_it_is_a_simulation(gateway: Gateway) -> None:
    page = gateway.http.get("/")
    assert "no money moves" in page.text
    assert page.headers["x-simulated-gateway"] == "danal"
    assert "simulated" in gateway.listening["message"]
    assert gateway.pay("says").json()["simulation"] is True


def test_charges_a_key_once(gateway: Gateway) -> None:
    first, again = gateway.pay("once"), gateway.pay("once")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["status"] == "captured"
    assert [e["kind"] for e in gateway.book(order_id="order-once")] == ["charge"]


def test_a_key_serves_one_order_only(gateway: Gateway) -> None:
    gateway.pay("one-order")
    for change in ({"amount": 1}, {"order_id": "another"}, {"currency": "USD"}, {"method": "phone"}):
        assert gateway.pay("one-order", **change).status_code == 422
    assert len(gateway.book(order_id="order-one-order")) == 1


def test_twins_charge_once(gateway: Gateway) -> None:
    gateway.faults(delay_ms=50)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: gateway.pay("twins"), range(16)))
    assert sorted(a.status_code for a in answers) == [200] * 15 + [201]
    assert len({a.text for a in answers}) == 1
    assert len(gateway.book(order_id="order-twins")) == 1


def test_cancel_refunds_in_full_and_only_once(gateway: Gateway) -> None:
    gateway.pay("refund")
    for _ in range(2):
        cancelled = gateway.cancel("refund").json()
        assert (cancelled["status"], cancelled["refunded_amount"]) == ("cancelled", 143_000)
    assert [(e["kind"], e["amount"]) for e in gateway.book(order_id="order-refund")] == [
        ("charge", 143_000),
        ("refund", 143_000),
    ]
    assert gateway.pay("refund").json()["status"] == "cancelled"


def test_cancelling_an_unknown_key_forbids_a_later_charge(gateway: Gateway) -> None:
    assert gateway.cancel("tombstone").json()["status"] == "cancelled"
    late = gateway.pay("tombstone")
    assert (late.status_code, late.json()["status"], late.json()["captured_amount"]) == (200, "cancelled", 0)
    assert gateway.pay("tombstone", amount=1).status_code == 422
    assert gateway.book(order_id="order-tombstone") == []


def test_declined_then_cancelled(gateway: Gateway) -> None:
    assert gateway.pay("declined", method="card_declined").json()["status"] == "declined"
    assert gateway.cancel("declined").json()["status"] == "cancelled"
    gateway.faults(mode="decline")
    assert gateway.pay("declined-2").json()["status"] == "declined"
    assert gateway.book(order_id="order-declined") == []


def test_an_unknown_key_is_not_found(gateway: Gateway) -> None:
    assert gateway.http.get("/v1/payments/never-seen").status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 0},
        {"amount": -5},
        {"amount": 1.5},
        {"amount": True},
        {"amount": "10"},
        {"currency": "won"},
        {"key": ""},
        {"key": "a b"},
        {"key": "x" * 201},
        {"order_id": None},
        {"extra": 1},
        {"callback_url": "http://example.com/"},
    ],
)
def test_a_bad_charge_is_a_clear_400(gateway: Gateway, change: dict[str, Any]) -> None:
    before = gateway.book()
    answer = gateway.http.post("/v1/payments", json=order("bad") | change)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert gateway.book() == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"null"])
def test_a_body_that_is_no_order_is_400(gateway: Gateway, body: bytes) -> None:
    assert gateway.http.post("/v1/payments", content=body).status_code == 400


def test_a_huge_body_is_413(gateway: Gateway) -> None:
    assert gateway.http.post("/v1/payments", content=b"x" * 70_000).status_code == 413


@pytest.mark.parametrize(
    "faults", [{"delay_ms": -1}, {"delay_ms": 60_001}, {"error_rate": 1.1}, {"mode": "sleepy"}, {"dealy_ms": 5}]
)
def test_bad_faults_are_refused_and_change_nothing(gateway: Gateway, faults: dict[str, Any]) -> None:
    answer = gateway.http.put("/_faults", json=faults)
    assert answer.status_code == 400
    assert next(iter(faults)) in answer.json()["detail"]
    assert gateway.http.get("/_faults").json()["mode"] == "ok"


def test_faults_left_out_stay(gateway: Gateway) -> None:
    gateway.faults(delay_ms=7)
    gateway.faults(error_rate=0.5)
    shown = gateway.http.get("/_faults").json()
    assert (shown["delay_ms"], shown["error_rate"], shown["mode"]) == (7, 0.5, "ok")
    cleared = gateway.http.delete("/_faults").json()
    assert (cleared["delay_ms"], cleared["error_rate"]) == (0, 0)


def test_the_delay_comes_before_booking_and_outlives_the_panel(gateway: Gateway) -> None:
    gateway.faults(delay_ms=600)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(gateway.pay, "slow")
        # A later request of the same kind proves that the slow one is in: both wait on one loop, first come first.
        gateway.gets_no_answer("GET", "/v1/payments/slow")
        gateway.well()
        assert gateway.panel.get("/v1/payments/slow").status_code == 404
        assert not slow.done()
        assert slow.result().status_code == 201


def test_a_request_of_a_client_that_left_is_still_booked(gateway: Gateway) -> None:
    gateway.faults(delay_ms=300)
    gateway.gets_no_answer("POST", "/v1/payments", json=order("left"))
    assert gateway.pay("left").status_code == 200, "its twin, 300 ms later, finds it booked"


def test_errors_come_before_and_after_booking(gateway: Gateway) -> None:
    gateway.faults(error_rate=1.0)
    keys = [f"error-{n}" for n in range(40)]
    assert {gateway.pay(key).status_code for key in keys} == {500}
    assert gateway.http.get("/v1/payments/error-0").status_code == 500
    gateway.well()
    booked = sum(gateway.http.get(f"/v1/payments/{key}").status_code == 200 for key in keys)
    assert 0 < booked < 40


def test_approve_then_hang_books_and_never_answers(gateway: Gateway) -> None:
    gateway.faults(mode="approve_then_hang")
    gateway.gets_no_answer("POST", "/v1/payments", json=order("hang"))
    assert gateway.status_of("hang") == "captured"
    assert gateway.cancel("hang").json()["status"] == "cancelled"


def test_refuse_refuses_the_connection_and_the_panel_stays(gateway: Gateway) -> None:
    gateway.pay("kept-alive")  # leaves an open connection behind
    gateway.faults(mode="refuse")
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            gateway.pay("refused")
    with pytest.raises(httpx.ConnectError):
        httpx.post(f"{gateway.url}/v1/payments", json=order("refused"), trust_env=False)
    gateway.well()
    assert gateway.http.get("/v1/payments/refused").status_code == 404
    assert gateway.pay("refused").status_code == 201


def test_reset_cuts_the_connection_and_books_nothing(gateway: Gateway) -> None:
    gateway.faults(mode="reset")
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        gateway.pay("reset")
    gateway.well()
    assert gateway.http.get("/v1/payments/reset").status_code == 404


@pytest.fixture
def callbacks() -> Iterator[tuple[str, "Queue[dict[str, Any]]"]]:
    received: Queue[dict[str, Any]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_duplicate_books_once_and_calls_back_twice(
    gateway: Gateway, callbacks: tuple[str, "Queue[dict[str, Any]]"]
) -> None:
    url, received = callbacks
    gateway.pay("called-back", callback_url=url)
    assert received.get(timeout=5)["key"] == "called-back"
    gateway.faults(mode="duplicate")
    gateway.pay("duplicate", callback_url=url)
    assert [received.get(timeout=5)["key"] for _ in range(2)] == ["duplicate"] * 2
    assert received.empty()
    assert len(gateway.book(order_id="order-duplicate")) == 1


def test_the_book_can_be_paged(start: Callable[..., Gateway]) -> None:
    gateway = start()
    for n in range(7):
        gateway.pay(f"page-{n}")
    seen, after = [], 0
    while after is not None:
        page = gateway.http.get("/_book", params={"after": after, "limit": 3}).json()
        seen += [e["key"] for e in page["entries"]]
        after = page["next_after"]
    assert seen == [f"page-{n}" for n in range(7)]
    assert gateway.http.get("/_book", params={"limit": 0}).status_code == 400
    assert gateway.http.get("/_book", params={"aftr": 0}).status_code == 400


def test_the_book_survives_kill_9(start: Callable[..., Gateway], tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    before = start(tmp_path, port)
    before.pay("kept")
    before.cancel("forbidden")
    before.stop(signal.SIGKILL)
    after = start(tmp_path, port)
    assert after.pay("kept").status_code == 200
    assert after.pay("forbidden").json()["status"] == "cancelled"
    assert [e["key"] for e in after.book()] == ["kept"]


def test_stops_cleanly_with_a_request_hanging(start: Callable[..., Gateway]) -> None:
    gateway = start()
    gateway.faults(mode="approve_then_hang")
    with (
        httpx.Client(base_url=gateway.url, timeout=0.2, trust_env=False) as impatient,
        pytest.raises(httpx.ReadTimeout),
    ):
        impatient.post("/v1/payments", json=order("hanging"))
    assert gateway.stop() == 0


def test_a_taken_port_is_a_clear_failure(shared: Gateway, tmp_path: Path) -> None:
    port = shared.url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "payment_gateways", "--name", "payco", "--port", port, "--book", str(tmp_path)]
    env = os.environ | {"PYTHONPATH": str(LOCALSTACK)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 1
    assert "cannot listen" in done.stdout


def test_the_stack_says_when_a_firm_refuses_as_it_was_told(start: Callable[..., Gateway], tmp_path: Path) -> None:
    instance = Instance("main", tmp_path, {})
    firm = start(instance.data_dir("danal"))
    instance.ports["danal"] = int(urlsplit(firm.url).port or 0)
    part_named("danal").probe(instance)

    firm.faults(mode="refuse")
    with pytest.raises(Unhealthy, match=f"curl -X DELETE {firm.listening['panel_url']}/_faults heals it"):
        part_named("danal").probe(instance)
    firm.well()
    part_named("danal").probe(instance)

    firm.stop()
    with pytest.raises(Unhealthy, match="GET /healthz"):
        part_named("danal").probe(instance)
