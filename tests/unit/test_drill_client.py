"""The drills' HTTP client, against a server that behaves as the test says."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from drills.harness import client
from drills.harness.client import Client, Reply

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Asked:
    """What a server has seen."""

    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0


def answering(asked: Asked, *answers: bytes, delay_s: float = 0.0) -> Serve:
    """Answers each request of a connection with the next answer, the last one again and again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.connections += 1
        nth = 0
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
            asked.heads.append(head + await reader.readexactly(length))
            asked.at_once += 1
            asked.most_at_once = max(asked.most_at_once, asked.at_once)
            await asyncio.sleep(delay_s)
            asked.at_once -= 1
            answer = answers[min(nth, len(answers) - 1)]
            nth += 1
            writer.write(answer)
            if not answer or b"Connection: close" in answer:
                break
        writer.close()

    return serve


def ask(serve: Serve, count: int = 1, *, prefix: str = "", together: bool = False, timeout_s: float = 5) -> list[Reply]:
    """``count`` requests to a server, over at most three connections."""

    async def run() -> list[Reply]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}{prefix}", connections_max=3, timeout_s=timeout_s)
        asks = [client.ask("POST", "/things?x=1", {"Idempotency-Key": "k"}, b"{}") for _ in range(count)]
        replies = await asyncio.gather(*asks) if together else [await one for one in asks]
        client.close()
        server.close()
        return replies

    return asyncio.run(run())


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Name: value\r\n\r\n{}"


def test_a_request_is_sent_whole_and_its_answer_read() -> None:
    asked = Asked()

    [reply] = ask(answering(asked, OK), prefix="/_aws/v1/")

    assert asked.heads[0].startswith(b"POST /_aws/v1/things?x=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Idempotency-Key: k\r\n" in asked.heads[0]
    assert asked.heads[0].endswith(b"Content-Length: 2\r\n\r\n{}")
    assert (reply.status, reply.body, reply.fault, reply.headers["x-name"]) == (200, b"{}", "", "value")


def test_a_connection_is_kept_and_one_that_the_server_ends_is_not() -> None:
    kept, ended = Asked(), Asked()

    ask(answering(kept, OK), 5)
    ask(answering(ended, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")), 5)

    assert kept.connections == 1
    assert ended.connections == 5


def test_a_connection_that_was_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_IDLE_S_MAX", 0.0)
    asked = Asked()

    replies = ask(answering(asked, OK), 3)

    assert [reply.status for reply in replies] == [200] * 3
    assert asked.connections == 3


def test_no_more_connections_than_allowed() -> None:
    asked = Asked()

    replies = ask(answering(asked, OK, delay_s=0.02), 10, together=True)

    assert [reply.status for reply in replies] == [200] * 10
    assert asked.most_at_once == asked.connections == 3


def test_answers_in_chunks_and_without_a_body() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    replies = ask(answering(Asked(), chunked, b"HTTP/1.1 204 No Content\r\n\r\n", OK), 3)

    assert [(reply.status, reply.body) for reply in replies] == [(200, b"abcde"), (204, b""), (200, b"{}")]


def test_retry_after_is_read_where_it_is_a_number() -> None:
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: %s\r\n\r\n"

    replies = ask(answering(Asked(), busy % b"2", busy % b"Wed, 21 Oct 2015 07:28:00 GMT", OK), 3)

    assert [reply.retry_after_s for reply in replies] == [2.0, None, None]


def test_each_fault_is_a_reply_with_its_name() -> None:
    async def nobody() -> Reply:
        server = await asyncio.start_server(answering(Asked(), OK), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await Client(f"http://127.0.0.1:{port}", connections_max=1, timeout_s=5).ask("GET", "/", {})

    assert asyncio.run(nobody()) == Reply(0, fault="refused")
    assert ask(answering(Asked(), OK, delay_s=5), timeout_s=0.05) == [Reply(0, fault="timeout")]
    assert ask(answering(Asked(), b"")) == [Reply(0, fault="cut")]
    assert ask(answering(Asked(), b"this is not HTTP\r\n\r\n")) == [Reply(0, fault="cut")]


def test_after_a_fault_the_next_request_has_a_connection_of_its_own() -> None:
    asked = Asked()

    first, second = ask(answering(asked, b"", OK), 2)

    assert (first.fault, second.fault) == ("cut", "cut")  # each connection's first answer is none
    assert asked.connections == 2
