"""The persisted book of one simulated gateway: what was charged, declined, cancelled and refunded.

The book is the owner of the truth about money. A payment's row is its present state; `entry` is append-only and holds
every charge and every refund in the order they were committed, which is what an auditor adds up. SQLite in WAL mode
with `synchronous=normal`: what was answered survives `kill -9`; a power cut of this machine may take the last moments.
A flush for each payment, on a disk that Postgres and Kafka flush too, keeps a firm at some 250 payments a second.

Every method is one transaction and none awaits, so on the event loop two requests with one key can never interleave:
the second finds what the first committed.
"""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

_SCHEMA = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")

Status = Literal["captured", "declined", "cancelled"]


class KeyConflict(Exception):
    """This key was already used with a different order, amount, currency or method."""


class Order(msgspec.Struct, frozen=True):
    """What a client asks to be charged; `amount` is an integer of the currency's smallest unit."""

    key: str
    order_id: str
    amount: int
    currency: str
    method: str


class Payment(msgspec.Struct, frozen=True):
    """The present state of one key. A tombstone (cancelled before any charge) has no order yet."""

    key: str
    status: Status
    order_id: str | None
    amount: int | None
    currency: str | None
    method: str | None
    captured_amount: int
    refunded_amount: int
    created_at: str
    cancelled_at: str | None

    def is_tombstone(self) -> bool:
        return self.order_id is None

    def is_for(self, order: Order) -> bool:
        asked = (order.order_id, order.amount, order.currency, order.method)
        return (self.order_id, self.amount, self.currency, self.method) == asked


class Entry(msgspec.Struct, frozen=True):
    """One movement of money: a charge or a refund, never changed once written."""

    seq: int
    kind: Literal["charge", "refund"]
    key: str
    order_id: str
    amount: int
    currency: str
    at: str


class Book:
    """Opens (and creates) the book at `path`; one process per book."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=normal")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> Payment | None:
        row = self._db.execute("select * from payment where key = ?", (key,)).fetchone()
        return msgspec.convert(dict(row), Payment) if row else None

    def charge(self, order: Order, decline: bool) -> tuple[Payment, bool]:
        """Charge or decline `order`, once per key.

        Returns the payment and whether this call made it. A key known before keeps its first result, a tombstone stays
        cancelled. Raises KeyConflict when the key was used for something else.
        """
        with _Transaction(self._db):
            known = self.get(order.key)
            if known is None:
                self._insert(order, "declined" if decline else "captured")
                return self._must_get(order.key), True
            if known.is_tombstone():
                # The order is remembered so that the key can serve no other order later; nothing is charged.
                self._db.execute(
                    "update payment set order_id = ?, amount = ?, currency = ?, method = ? where key = ?",
                    (order.order_id, order.amount, order.currency, order.method, order.key),
                )
                return self._must_get(order.key), False
            if not known.is_for(order):
                raise KeyConflict(order.key)
            return known, False

    def cancel(self, key: str) -> Payment:
        """Cancel by key, any number of times: a capture is refunded in full, an unknown key gets a tombstone."""
        with _Transaction(self._db):
            known = self.get(key)
            if known is None:
                self._db.execute(
                    "insert into payment (key, status, created_at, cancelled_at) values (?, 'cancelled', ?, ?)",
                    (key, _now(), _now()),
                )
            elif known.status != "cancelled":
                self._db.execute(
                    "update payment set status = 'cancelled', refunded_amount = captured_amount, cancelled_at = ?"
                    " where key = ?",
                    (_now(), key),
                )
                if known.status == "captured":
                    self._append("refund", key, known.order_id, known.captured_amount, known.currency)
            return self._must_get(key)

    def entries(self, after: int, limit: int, order_id: str | None) -> Sequence[Entry]:
        """Movements with seq > `after`, oldest first, at most `limit`, of one order if given."""
        rows = self._db.execute(
            "select * from entry where seq > ? and (? is null or order_id = ?) order by seq limit ?",
            (after, order_id, order_id, limit),
        )
        return [msgspec.convert(dict(row), Entry) for row in rows]

    def _insert(self, order: Order, status: Status) -> None:
        captured = order.amount if status == "captured" else 0
        self._db.execute(
            "insert into payment (key, status, order_id, amount, currency, method, captured_amount, created_at)"
            " values (?, ?, ?, ?, ?, ?, ?, ?)",
            (order.key, status, order.order_id, order.amount, order.currency, order.method, captured, _now()),
        )
        if status == "captured":
            self._append("charge", order.key, order.order_id, order.amount, order.currency)

    def _append(self, kind: str, key: str, order_id: str | None, amount: int, currency: str | None) -> None:
        self._db.execute(
            "insert into entry (kind, key, order_id, amount, currency, at) values (?, ?, ?, ?, ?, ?)",
            (kind, key, order_id, amount, currency, _now()),
        )

    def _must_get(self, key: str) -> Payment:
        payment = self.get(key)
        if payment is None:
            raise LookupError(f"{key} was written in this very transaction and is not there")
        return payment


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK when the block raises."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("begin immediate")

    def __exit__(self, kind: Any, *_: object) -> None:
        self._db.execute("rollback" if kind else "commit")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
