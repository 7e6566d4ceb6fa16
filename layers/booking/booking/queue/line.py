"""A person's way through a concert's waiting line: join, ask, leave, and the end of a turn.

Each call is one Lua script in Redis, which also lets in whoever may come in. Redis answers from memory that it may
lose; a person's place is in the signed token they hold and the record of who was let in is in Postgres. So a script
that finds no gate is answered by restoring the line (``restore``) and asking again.
"""

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Literal, NamedTuple

import msgspec
from redis.exceptions import RedisError

from booking.platform.postgres import primary
from booking.platform.problems import Conflict, Gone, Refusal, Unavailable
from booking.platform.redis import RedisAway, redis, redis_away_refuses
from booking.platform.redis_keys import line_keys
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import logger
from booking.queue.restore import restore_line
from booking.queue.scripts import script
from booking.queue.tokens import Pass, Token, read_token, sign_pass, sign_token

EndReason = Literal["paid", "left"]

_HAS_RESERVATION = read_text("booking.queue", "sql/has_reservation.sql")
_RESTORING_PAUSE_S = 0.05
_RESTORING_TRIES = 20


class SalesNotOpen(Conflict):
    """The sale has not opened yet."""

    slug = "sales-not-open"


class SoldOut(Gone):
    """The concert is sold out; your place is kept in case seats come back."""

    slug = "sold-out"


class TurnOver(Gone):
    """This turn in the waiting line is over; join again for a new place."""

    slug = "turn-over"


class LineClosed(Unavailable):
    """The waiting line is closed; places are kept."""

    slug = "line-closed"


class Turn(msgspec.Struct, frozen=True):
    """Where a person is: waiting (their position, when to ask again) or admitted (their pass).

    ``eta_s`` is None while the gate lets nobody in. Before a draw, ``opens_at`` says when it will be, and position,
    ahead and eta_s are None. ``created`` says that this call gave the place.
    """

    state: Literal["waiting", "admitted"]
    token: str
    position: int | None = 0
    ahead: int | None = 0
    eta_s: int | None = 0
    poll_after_ms: int | None = None
    shop_pass: str | None = None
    pass_expires_at: str | None = None
    opens_at: str | None = None
    message: str | None = None
    created: bool = False

    def body(self) -> dict[str, Any]:
        """The answer of steps 1 and 2."""
        body: dict[str, Any] = {
            "token": self.token,
            "state": self.state,
            "position": self.position,
            "ahead": self.ahead,
            "eta_s": self.eta_s,
        }
        if self.state == "admitted":
            return body | {"pass": self.shop_pass, "pass_expires_at": self.pass_expires_at}
        body["poll_after_ms"] = self.poll_after_ms
        if self.opens_at:
            body["opens_at"] = self.opens_at
        return body | {"message": self.message} if self.message else body

    def headers(self) -> dict[str, str]:
        """The headers of the answer: Retry-After, whole seconds, while waiting."""
        return {} if self.poll_after_ms is None else {"Retry-After": str(max(1, -(-self.poll_after_ms // 1000)))}


def join_line(concert_id: int, person: str) -> Turn:
    """Give ``person`` a place in the line, or show them the one they have.

    Raises ConcertUnknown, SalesNotOpen (with ``opens_at``), SoldOut (with the ``token`` of a person who has a
    reservation), LineClosed, RedisAway.
    """
    reply = _ask("join", concert_id, person, random.random())
    if reply[0] == b"SOLD_OUT":
        raise _sold_out(concert_id, person, epoch=reply[1], place=reply[2])
    return _turn(concert_id, person, reply)


def position(token_text: str | None) -> Turn:
    """Where the holder of a token is. The first answer that carries the pass is its claim. A token that has lived half
    its life is answered with a new one for the same place: a draw may collect people for longer than that.

    Raises TokenInvalid, TokenExpired, TurnOver, SoldOut, LineClosed, RedisAway.
    """
    token = read_token(token_text)
    reply = _ask("position", token.concert_id, token.person, random.random(), token.place, token.epoch)
    if reply[0] == b"SOLD_OUT":
        raise SoldOut
    is_old = token.expires_at < time.time() + settings().token_ttl_s / 2
    return _turn(token.concert_id, token.person, reply, None if is_old else token_text)


def leave_line(token_text: str | None) -> None:
    """End the turn of a token's holder, waiting or inside. Raises TokenInvalid, TokenExpired, RedisAway."""
    token = read_token(token_text)
    _ask("leave", token.concert_id, token.person, token.place, token.epoch)


def end_turn(concert_id: int, person: str, pass_id: str, reason: EndReason) -> None:
    """Free the slot of a person who has finished shopping. Best effort: never raises for Redis.

    Postgres has recorded the end already; a slot that is not freed here lapses with its pass.
    """
    try:
        _run("end_turn", concert_id, person, pass_id, reason)
    except RedisError as fault:
        logger().warning("turn not ended in the line", concert_id=concert_id, person=person, reason=repr(fault))


def set_sold_out(concert_id: int, sold_out: bool) -> None:
    """Tell the line at once whether every seat is confirmed. Best effort: never raises for Redis.

    The background loop tells it again each second (``set_gate``), from the counters of the sales.
    """
    try:
        _run("set_sold_out", concert_id, int(sold_out))
    except RedisError as fault:
        logger().warning("line not told of the sale", concert_id=concert_id, sold_out=sold_out, reason=repr(fault))


class GateTold(NamedTuple):
    """What came of telling a line its settings: whether they are in force there now, how many were let in, and for how
    many seconds nobody is, as people are waited for."""

    in_force: bool
    admitted: int
    held_s: int


def set_gate(concert_id: int, line_settings: Mapping[str, Any]) -> GateTold:
    """Tell a running line its settings as Postgres has them, and let in whoever may come in. Raises RedisAway.

    A line that is not running, or has newer settings, takes no notice.
    """
    change_id, epoch, *others = line_settings.items()
    with redis_away_refuses():
        reply = _run("set_gate", concert_id, change_id[1], epoch[1], *chain.from_iterable(others))
    return GateTold(reply[1] == 1, int(reply[2]), int(reply[3]))


def show_line(concert_id: int) -> dict[str, Any] | None:
    """The line as it stands in Redis (``lua/show_gate.lua``), None where there is none. Raises RedisAway."""
    with redis_away_refuses():
        _, *found = _run("show_gate", concert_id)
    return dict(zip((name.decode() for name in found[::2]), found[1::2], strict=True)) if found else None


def common_arguments(concert_id: int) -> list[str | float]:
    """The arguments that every script of the line begins with (``lua/line.lua``)."""
    set_to = settings()
    return [concert_id, set_to.claim_window_s, set_to.pass_ttl_s, set_to.polls_per_s_max]


def _ask(name: str, concert_id: int, *args: str | float) -> list[Any]:
    """Run a script, restoring the line where Redis has none. Raises RedisAway when that did not help."""
    for _ in range(_RESTORING_TRIES):
        try:  # as redis_away_refuses does, without its context manager: every join and poll comes by here
            reply = _run(name, concert_id, *args)
        except RedisError as fault:
            raise RedisAway(retry_after_s=2) from fault
        if reply[0] == b"REBUILD":
            restore_line(concert_id, common_arguments(concert_id))
        elif reply[0] == b"RESTORING":
            time.sleep(_RESTORING_PAUSE_S)
        else:
            return reply
    raise RedisAway(retry_after_s=1)


def _run(name: str, concert_id: int, *args: str | float) -> list[Any]:
    reply: list[Any] = script(name)(redis("queue"), line_keys(concert_id), [*common_arguments(concert_id), *args])
    return reply


def _turn(concert_id: int, person: str, reply: list[Any], token_text: str | None = None) -> Turn:
    """The turn that a script's reply describes, or the refusal that it is."""
    word, *values = reply
    if word == b"ADMITTED":
        epoch, place, number, pass_id, expires_us, created = values
        # Whole seconds, rounded down: a pass never outlives its slot.
        shopper = Pass(concert_id, person, place, epoch, number, pass_id.decode(), expires_us // 1_000_000)
        return Turn(
            state="admitted",
            token=token_text or _token(concert_id, person, place, epoch),
            shop_pass=sign_pass(shopper),
            pass_expires_at=_rfc3339(shopper.expires_at),
            created=created == 1,
        )
    if word == b"WAITING":
        numbers, message = values
        epoch, place, ahead, interval_ms, eta_s, created = map(int, numbers.split())
        return Turn(
            state="waiting",
            token=token_text or _token(concert_id, person, place, epoch),
            position=ahead + 1,
            ahead=ahead,
            eta_s=None if eta_s < 0 else eta_s,
            poll_after_ms=interval_ms,
            message=message.decode() or None,
            created=created == 1,
        )
    if word == b"COLLECTED":
        numbers, message = values
        epoch, place, interval_ms, opens_us, created = map(int, numbers.split())
        return Turn(
            state="waiting",
            token=token_text or _token(concert_id, person, place, epoch),
            position=None,
            ahead=None,
            eta_s=None,
            poll_after_ms=interval_ms,
            opens_at=_rfc3339(opens_us / 1_000_000),
            message=message.decode() or None,
            created=created == 1,
        )
    raise _refusal(word, values)


def _refusal(word: bytes, values: list[Any]) -> Refusal:
    if word == b"OVER":
        return TurnOver(reason=values[0].decode())
    if word == b"CLOSED":
        return LineClosed(values[0].decode() or None, retry_after_s=-(-values[1] // 1000))
    if word == b"NOT_OPEN":
        opens_at_s = values[0] / 1_000_000
        return SalesNotOpen(retry_after_s=max(1, round(opens_at_s - time.time())), opens_at=_rfc3339(opens_at_s))
    raise AssertionError(f"the line's scripts do not answer {word!r}")


def _sold_out(concert_id: int, person: str, *, epoch: int, place: int) -> SoldOut:
    if primary().value(_HAS_RESERVATION, person=person, concert_id=concert_id):
        # They may have lost the token, and need it to see their reservation.
        return SoldOut(token=_token(concert_id, person, place, epoch))
    return SoldOut()


def _token(concert_id: int, person: str, place: int, epoch: int) -> str:
    return sign_token(Token(concert_id, person, place, epoch, int(time.time()) + settings().token_ttl_s))


def _rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
