"""Step 3: the concerts."""

import base64
import binascii
from typing import Any

import msgspec

from booking.platform.postgres import Row, read_anywhere
from booking.platform.problems import BadRequest, NotFound
from booking.platform.resources import read_text

PAGE_SIZE_DEFAULT = 20
PAGE_SIZE_MAX = 100
_PAGE_SIZE_DIGITS = 3
CACHE_CONTROL = "public, max-age=30"

_CONCERTS = read_text(__package__, "sql/concerts.sql")
_BEST_SELLING = read_text(__package__, "sql/best_selling.sql")
_CONCERT = read_text(__package__, "sql/concert.sql")


class ConcertUnknown(NotFound):
    """There is no such concert."""

    slug = "concert-unknown"


def list_concerts(limit: str | None, cursor: str | None, order: str | None = None) -> dict[str, Any]:
    """One page: ``{"concerts": [...], "next_cursor": text or null}``. Raises BadRequest for an unusable page.

    ``order``: ``id``, or ``best_selling``: those of which the most seats are sold, with ``seats_sold``, in one page.
    """
    size = _page_size(limit)
    if order == "best_selling":
        return _best_selling(size, cursor)
    if order not in (None, "id"):
        raise BadRequest("order must be id or best_selling")
    rows = read_anywhere(_CONCERTS, after=_decode_cursor(cursor), limit=size + 1)
    page = [_concert(row) for row in rows[:size]]
    more = len(rows) > size
    return {"concerts": page, "next_cursor": _encode_cursor(page[-1]["id"]) if more else None}


def find_concert(concert_id: int) -> dict[str, Any]:
    """One concert, with how its line is ordered: ``line_mode`` and, where it is a draw, ``draw`` with the seed's hash
    and, once the sale has opened, the seed. Raises ConcertUnknown.
    """
    rows = read_anywhere(_CONCERT, concert_id=concert_id)
    if not rows:
        raise ConcertUnknown(f"no concert {concert_id}")
    *columns, line_mode, draw = rows[0]
    concert = _concert(columns) | {"line_mode": line_mode}
    return concert | {"draw": msgspec.json.decode(draw)} if draw else concert


def _best_selling(size: int, cursor: str | None) -> dict[str, Any]:
    if cursor is not None:
        raise BadRequest("the best selling concerts are one page: ask without a cursor")
    rows = read_anywhere(_BEST_SELLING, limit=size)
    return {"concerts": [_concert(row[:-1]) | {"seats_sold": row[-1]} for row in rows], "next_cursor": None}


def _concert(row: Row) -> dict[str, Any]:
    names = ("id", "title", "artist", "venue", "sales_open_at", "status")
    return dict(zip(names, row, strict=True))


def _page_size(text: str | None) -> int:
    if text is None:
        return PAGE_SIZE_DEFAULT
    if text.isascii() and text.isdigit() and len(text) <= _PAGE_SIZE_DIGITS and 1 <= int(text) <= PAGE_SIZE_MAX:
        return int(text)
    raise BadRequest(f"limit must be a whole number from 1 to {PAGE_SIZE_MAX}")


def _encode_cursor(concert_id: int) -> str:
    return base64.urlsafe_b64encode(f"after:{concert_id}".encode()).decode().rstrip("=")


def _decode_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        text = base64.urlsafe_b64decode(cursor[:64] + "=" * (-len(cursor[:64]) % 4)).decode("ascii")
        name, _, number = text.partition(":")
        if name == "after" and number.isdigit() and int(number) < 2**63:
            return int(number)
    except (binascii.Error, ValueError):
        pass
    raise BadRequest("cursor must be the next_cursor of an earlier answer")
