"""The payment firms' own books: every charge and every refund, in the order in which they were made.

One question is asked of a firm, and this module is all that knows how: what has moved since an entry? The simulated
firms answer it at ``/_book``. A real one publishes it as a settlement report, which takes this place.
"""

import http.client
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from booking.platform.settings import settings

_PAGE = 10_000
_READ_TIMEOUT_S = 30


class BookUnreadable(RuntimeError):
    """A firm's book cannot be read, or is no longer what it was; the message says which and why."""


class BookEntry(msgspec.Struct, frozen=True):
    """One movement of money: a charge of an order or its refund. ``amount`` in the currency's smallest unit."""

    seq: int
    kind: Literal["charge", "refund"]
    key: str
    order_id: str
    amount: int
    currency: str
    at: str
    """RFC 3339, by the firm's clock."""


class _BookPage(msgspec.Struct, frozen=True):
    entries: list[BookEntry]
    next_after: int | None


_BOOK_PAGE = msgspec.json.Decoder(_BookPage)


def book_urls() -> Mapping[str, str]:
    """Where each firm's book is, by the gateway's name."""
    return {"danal": settings().danal_url, "payco": settings().payco_url}


def read_book(url: str, after: int = 0) -> Iterator[list[BookEntry]]:
    """The entries of the book at ``url`` with a ``seq`` over ``after``, oldest first, page by page.

    Raises BookUnreadable when it cannot be read to its end.
    """
    address = urlsplit(url)
    page = _BookPage([], after)
    with closing(
        http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=_READ_TIMEOUT_S)
    ) as connection:
        while page.next_after is not None:
            try:
                connection.request("GET", f"/_book?after={page.next_after}&limit={_PAGE}")
                response = connection.getresponse()
                text = response.read()
                if response.status != 200:
                    raise BookUnreadable(f"the gateway at {url} answered {response.status} for its book")
                page = _BOOK_PAGE.decode(text)
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as fault:
                raise BookUnreadable(f"the book of the gateway at {url} cannot be read: {fault}") from fault
            yield page.entries
