"""The HTTP API of a simulated payment gateway.

    POST   /v1/payments               charge, once per key: 201 made now, 200 known before, 422 other order
    GET    /v1/payments/{key}         the present state, or 404
    POST   /v1/payments/{key}/cancel  refund or forbid, any number of times: always ends in `cancelled`
    GET    /_book                     charges and refunds, `?after=SEQ&limit=N&order_id=ID`
    GET | PUT | DELETE /_faults       the fault panel
    GET    /healthz                   is it up

Faults act on /v1 only. `delay_ms` passes before anything is booked. `error_rate` is the share of charges, queries and
cancels answered 500; half of those (at random) fail before booking and half after it, so a client that gets a 500 has
to ask. A client that goes away changes nothing: a request that was read is carried out.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from payment_gateways.book import Book, KeyConflict, Order, Payment
from payment_gateways.faults import Faults, FaultsChange, Mode

DECLINED_METHOD = "card_declined"
"""A payment by this method is always declined: handy in tests and on the tour."""

_BODY_BYTES_MAX = 64 * 1024
_HANG_S_MAX = 60
_PAGE_DEFAULT, _PAGE_MAX = 1_000, 10_000

logger = logging.getLogger("payment_gateways")

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[\w.:-]+\Z")]


class ChargeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/payments`. `callback_url` (loopback only) also gets the result, as a firm's webhook would."""

    key: Text
    order_id: Text
    amount: Annotated[int, msgspec.Meta(ge=1, le=10**12)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
    method: Text
    callback_url: str | None = None

    def order(self) -> Order:
        return Order(self.key, self.order_id, self.amount, self.currency, self.method)


class _Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    after: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=_PAGE_MAX)] = _PAGE_DEFAULT
    order_id: str | None = None


class Refused(Exception):
    """A request that is answered with a problem and changes nothing."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Gateway:
    """One simulated gateway: its book, its faults and its routes.

    `set_public_listener(False)` has to close the public port (mode `refuse`), `True` to open it again; `panel_url` is
    an address of the same API that stays open meanwhile. Both are filled in by the server.
    """

    def __init__(self, name: str, book: Book) -> None:
        self.name = name
        self.book = book
        self.faults = Faults()
        self.panel_url: str | None = None
        self.set_public_listener: Callable[[bool], Awaitable[None]] = _nothing_to_do
        self._callbacks: set[asyncio.Task[None]] = set()
        self.app = Starlette(
            routes=[
                Route("/", self._root),
                Route("/healthz", self._health),
                Route("/_faults", self._guard(self._panel), methods=["GET", "PUT", "DELETE"]),
                Route("/_book", self._guard(self._list_book)),
                Route("/v1/payments", self._guard(self._charge), methods=["POST"]),
                Route("/v1/payments/{key}", self._guard(self._query)),
                Route("/v1/payments/{key}/cancel", self._guard(self._cancel), methods=["POST"]),
            ]
        )

    # --- payments -----------------------------------------------------------------------------------------------

    async def _charge(self, request: Request) -> Response:
        faults = self.faults
        asked = _decode(await _body(request), ChargeRequest)
        _check_callback(asked.callback_url)

        def book() -> Response:
            payment, made = self.book.charge(asked.order(), faults.mode is Mode.DECLINE or _is_declined(asked))
            if asked.callback_url:
                self._send_callback(asked.callback_url, payment, 2 if faults.mode is Mode.DUPLICATE else 1)
            return self._payment(payment, HTTPStatus.CREATED if made else HTTPStatus.OK)

        answer = await self._with_faults(request, faults, book)
        if faults.mode is Mode.APPROVE_THEN_HANG:
            await _hang(request)
        return answer

    async def _query(self, request: Request) -> Response:
        def book() -> Response:
            payment = self.book.get(request.path_params["key"])
            if payment is None:
                raise Refused(HTTPStatus.NOT_FOUND, "this gateway has never seen this key")
            return self._payment(payment)

        return await self._with_faults(request, self.faults, book)

    async def _cancel(self, request: Request) -> Response:
        key = _convert(request.path_params["key"], Text)
        return await self._with_faults(request, self.faults, lambda: self._payment(self.book.cancel(key)))

    async def _with_faults(self, request: Request, faults: Faults, book: Callable[[], Response]) -> Response:
        """Run `book` (which commits) under the faults that were set when the request came in."""
        if faults.mode in (Mode.REFUSE, Mode.RESET):  # refuse: a request on a connection that was open before
            await _cut(request)
        if faults.delay_ms:
            await asyncio.sleep(faults.delay_ms / 1000)
        fails = random.random() < faults.error_rate
        if fails and random.random() < 0.5:
            raise _failure()
        try:
            answer = book()
        except (Refused, KeyConflict) as e:
            raise _failure() if fails else e from None
        if fails:
            raise _failure()
        return answer

    def _payment(self, payment: Payment, status: HTTPStatus = HTTPStatus.OK) -> Response:
        return self._json({**msgspec.structs.asdict(payment), "gateway": self.name, "simulation": True}, status)

    def _send_callback(self, url: str, payment: Payment, times: int) -> None:
        task = asyncio.create_task(_post_callback(url, self._payment(payment).body, times))
        self._callbacks.add(task)  # the loop keeps only a weak reference
        task.add_done_callback(self._callbacks.discard)

    # --- panel, book, pages -------------------------------------------------------------------------------------

    async def _panel(self, request: Request) -> Response:
        if request.method == "PUT":
            await self._set_faults(_decode(await _body(request), FaultsChange).applied_to(self.faults))
        elif request.method == "DELETE":
            await self._set_faults(Faults())
        shown = {**msgspec.structs.asdict(self.faults), "gateway": self.name, "panel_url": self.panel_url}
        # After a change to `refuse` this connection must not serve one more payment.
        return self._json(shown, headers={"Connection": "close"})

    async def _set_faults(self, faults: Faults) -> None:
        before, self.faults = self.faults, faults
        if before != faults:
            logger.warning("faults changed", extra={"faults": msgspec.to_builtins(faults)})
        try:
            await self.set_public_listener(faults.mode is not Mode.REFUSE)
        except OSError as e:
            raise Refused(HTTPStatus.CONFLICT, f"the public port cannot be opened: {e}") from e

    async def _list_book(self, request: Request) -> Response:
        page = _convert(dict(request.query_params), _Page, strict=False)
        entries = self.book.entries(page.after, page.limit, page.order_id)
        more = entries[-1].seq if len(entries) == page.limit else None
        return self._json({"gateway": self.name, "simulation": True, "entries": entries, "next_after": more})

    async def _health(self, request: Request) -> Response:
        return self._json({"status": "ok", "gateway": self.name, "simulation": True})

    async def _root(self, request: Request) -> Response:
        page = (
            f"<!doctype html><title>{self.name} (simulation)</title><h1>{self.name}: a simulation</h1>"
            f"<p>This is a simulated payment gateway. It is not the firm {self.name}, and no money moves."
            f"<p>Its book: <a href=/_book>/_book</a>. Its faults: <a href=/_faults>/_faults</a>."
        )
        return HTMLResponse(page, headers=self._headers())

    # --- answers ------------------------------------------------------------------------------------------------

    def _guard(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            try:
                return await handler(request)
            except KeyConflict:
                return self._problem(HTTPStatus.UNPROCESSABLE_ENTITY, KeyConflict.__doc__ or "")
            except Refused as e:
                return self._problem(e.status, e.detail)

        return guarded

    def _problem(self, status: HTTPStatus, detail: str) -> Response:
        body = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail}
        return self._json(body, status, media_type="application/problem+json")

    def _json(
        self,
        body: Any,
        status: HTTPStatus = HTTPStatus.OK,
        media_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> Response:
        return Response(msgspec.json.encode(body), status, self._headers() | (headers or {}), media_type)

    def _headers(self) -> dict[str, str]:
        return {"X-Simulated-Gateway": self.name}


def _failure() -> Refused:
    return Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "simulated failure")


async def _nothing_to_do(_: bool) -> None:
    return None


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_BYTES_MAX:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is over {_BODY_BYTES_MAX} bytes")
    return bytes(body)


def _decode[T](body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as e:
        raise Refused(HTTPStatus.BAD_REQUEST, str(e)) from e


def _convert(value: Any, kind: Any, strict: bool = True) -> Any:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as e:
        raise Refused(HTTPStatus.BAD_REQUEST, str(e)) from e


def _is_declined(asked: ChargeRequest) -> bool:
    return asked.method == DECLINED_METHOD


def _check_callback(url: str | None) -> None:
    """A simulation calls nobody but this machine."""
    if url is None:
        return
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "localhost"):
        raise Refused(HTTPStatus.BAD_REQUEST, "callback_url must be http://127.0.0.1 or http://localhost")


async def _post_callback(url: str, body: bytes | memoryview, times: int) -> None:
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        for _ in range(times):
            try:
                await client.post(url, content=bytes(body), headers={"Content-Type": "application/json"})
            except httpx.HTTPError as e:
                logger.warning("callback failed", extra={"url": url, "error": repr(e)})


async def _hang(request: Request) -> None:
    """Hold the request unanswered until its client gives up, at most _HANG_S_MAX; then cut the connection."""
    try:
        async with asyncio.timeout(_HANG_S_MAX):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        await _cut(request)


async def _cut(request: Request) -> None:
    """Reset the connection. What the handler answers after this goes nowhere."""
    request.scope["state"]["reset_connection"]()
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "the connection was reset")
