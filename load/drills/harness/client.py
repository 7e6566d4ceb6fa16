"""HTTP/1.1 for thousands of people in one process: kept connections, asyncio to wait, httptools to parse.

The people of a drill share the two cores with what they load, so their client has to cost little: httptools is the
parser of uvicorn and node, and what is written here is only the bookkeeping around it.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

_IDLE_S_MAX = 10.0
"""The gateway ends a connection that was idle for 30 s: a request on it at that moment would be cut."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. ``status`` 0 means that no answer came, and ``fault`` says why: timeout, refused or cut."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""
    fault: str = ""

    @property
    def retry_after_s(self) -> float | None:
        """What the header Retry-After says, None where it says nothing usable."""
        text = self.headers.get("retry-after", "")
        return float(text) if text.isdigit() else None


class Client:
    """Asks one API over at most ``connections_max`` connections. Close it with ``close``."""

    def __init__(self, base_url: str, *, connections_max: int, timeout_s: float) -> None:
        address = urlsplit(base_url)
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80
        self._prefix = address.path.rstrip("/")
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(connections_max)
        self._idle: list[_Connection] = []

    async def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> Reply:
        """Send one request, once, and wait for its answer; waits for a free connection first. Never raises for the
        network: a fault is a reply too."""
        async with self._free:
            try:
                async with asyncio.timeout(self._timeout_s):
                    connection = await self._connection()
                    try:
                        reply = await connection.ask(self._request(method, path, headers, body))
                    except BaseException:
                        connection.close()
                        raise
            except TimeoutError:
                return Reply(0, fault="timeout")
            except ConnectionRefusedError:
                return Reply(0, fault="refused")
            except (OSError, httptools.HttpParserError):
                return Reply(0, fault="cut")
            if connection.is_open:
                self._idle.append(connection)
            else:  # the server wants to end it
                connection.close()
            return reply

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    async def _connection(self) -> "_Connection":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.monotonic() - connection.answered_s < _IDLE_S_MAX:
                return connection
            connection.close()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return connection

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        lines = [f"{method} {self._prefix}{path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self.answered_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Reply] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    async def ask(self, request: bytes) -> Reply:
        """Raises ConnectionError when the connection ends first, HttpParserError for what is not HTTP."""
        assert self._transport is not None, "the connection is made before it is used"
        self._answer = asyncio.get_running_loop().create_future()
        self._headers, self._body = {}, []
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        self.is_open = False
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as fault:
            self.close()
            self._end(fault)

    def connection_lost(self, fault: Exception | None) -> None:
        self.is_open = False
        self._end(fault or ConnectionResetError("closed by the server"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.is_open = False
        self.answered_s = time.monotonic()
        if self._answer and not self._answer.done():
            self._answer.set_result(Reply(self._parser.get_status_code(), self._headers, b"".join(self._body)))

    def _end(self, fault: Exception) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(fault)
