"""The gateway client: whatever a firm sends or does not send, the answer is an outcome, in time."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from booking.payment.gateways import Charge, Gateway, Outcome
from booking.payment.gateways.client import last_word

_CHARGE = Charge("key", "order", 1, "KRW", "card")
_TIMEOUT_S = 0.3


class _Settings:
    gateway_connect_timeout_s = 1.0
    gateway_read_timeout_s = _TIMEOUT_S


@pytest.fixture
def firm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Gateway]]:
    """A firm that reads one request and sends these bytes, one piece after the other with a pause between them."""
    monkeypatch.setattr("booking.payment.gateways.client.settings", _Settings)
    monkeypatch.setattr("booking.payment.gateways.circuit.Circuit.guard", lambda _, ask, judged: ask())
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    listeners: list[socket.socket] = []

    def start(*pieces: bytes, pause_s: float = 0.0) -> Gateway:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    for piece in pieces:
                        connection.sendall(piece)
                        time.sleep(pause_s)
                except OSError:
                    pass  # the client has had enough, which is what some of these tests are about

        threading.Thread(target=serve, daemon=True).start()
        return Gateway("firm", f"http://127.0.0.1:{listener.getsockname()[1]}")

    yield start
    for listener in listeners:
        listener.close()


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        (answer(b'{"status": "captured"}', b"201 Created"), Outcome.CAPTURED),
        (answer(b'{"status": "declined"}', b"402 Payment Required"), Outcome.DECLINED),
        (answer(b'{"status": "cancelled"}'), Outcome.CANCELLED),
        (answer(b"", b"404 Not Found"), Outcome.NEVER_SEEN),
        (answer(b"", b"500 Oops"), Outcome.UNKNOWN),
        (answer(b'{"status": "captured"}', b"500 Oops"), Outcome.UNKNOWN),
        (answer(b'{"status": "who knows"}'), Outcome.UNKNOWN),
        (answer(b'{"status": "\xff"}'), Outcome.UNKNOWN),
        (answer(b'{"status": 1}'), Outcome.UNKNOWN),
        (answer(b"[" * 10_000), Outcome.UNKNOWN),
        (answer(b"not json"), Outcome.UNKNOWN),
        (b"not http", Outcome.UNKNOWN),
        (b"", Outcome.UNKNOWN),
    ],
)
def test_every_answer_is_an_outcome(firm: Callable[..., Gateway], sent: bytes, outcome: Outcome) -> None:
    assert firm(sent).charge(_CHARGE) is outcome


def test_a_firm_that_dribbles_is_cut_off_in_time(firm: Callable[..., Gateway]) -> None:
    sent = answer(b'{"status": "captured"}')
    started_s = time.monotonic()

    assert firm(*(sent[i : i + 1] for i in range(len(sent))), pause_s=0.1).find("key") is Outcome.UNKNOWN
    assert time.monotonic() - started_s < 5 * _TIMEOUT_S


def test_a_refused_connection_sent_nothing(firm: Callable[..., Gateway]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert Gateway("firm", f"http://127.0.0.1:{port}").charge(_CHARGE) is Outcome.NOT_SENT


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([Outcome.NOT_SENT, Outcome.NOT_SENT], Outcome.NOT_SENT),
        ([Outcome.UNKNOWN, Outcome.NOT_SENT], Outcome.UNKNOWN),
        ([Outcome.UNKNOWN, Outcome.NOT_SENT, Outcome.DECLINED], Outcome.DECLINED),
        ([Outcome.NOT_SENT, Outcome.UNKNOWN], Outcome.UNKNOWN),
    ],
)
def test_a_try_that_may_have_arrived_is_not_forgotten(outcomes: list[Outcome], said: Outcome) -> None:
    assert last_word(outcomes) is said
