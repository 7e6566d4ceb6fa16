"""The page of all Redis keys says the truth: whoever walks the seven steps leaves no key that is not on it."""

import re

import httpx

from booking.platform import redis_keys
from booking.platform.redis import redis
from booking.platform.redis_keys import (
    LINE_NAMES,
    line_key,
    schedules_keys,
    seat_lock_key,
    seat_map_keys,
    unended_key,
)
from support.client import Person
from support.gateways import SimulatedGateway
from support.redis import runs_on
from support.shop import Shop


def documented() -> dict[str, list[str]]:
    """The first words of the page's tables, by the pattern of the keys that each table is about."""
    page, names, pattern = redis_keys.__doc__ or "", dict[str, list[str]](), ""
    for line in page.splitlines():
        if heading := re.match(r"``(\w+:\{\w?<[\w ]+>\}:)<name>``", line):
            pattern = heading[1]
            names[pattern] = []
        elif pattern and (row := re.match(r"(\S.*?) +(?:STRING|HASH|ZSET|STREAM) ", line)):
            names[pattern].append(row[1])
    return names


def on_the_page(key: str) -> bool:
    return any(
        re.fullmatch(re.sub(r"<[^>]+>", r"[\\w.-]+", re.escape(pattern + name).replace(r"\ ", " ")), key)
        for pattern, names in documented().items()
        for name in names
    )


def test_the_page_lists_what_the_functions_name() -> None:
    names = documented()

    assert names["line:{c<concert id>}:"] == list(LINE_NAMES)
    assert [len(each) for each in names.values()] == [len(LINE_NAMES), 5, 4, 3, 2, 1]
    for key in (
        line_key(7, "gate"),
        seat_lock_key(7, "1"),
        seat_lock_key(7, "held:x-y.z"),
        *seat_map_keys(7),
        *schedules_keys(7),
        unended_key("tickets"),
    ):
        assert on_the_page(key), key
    for key in ("line:{c7}:other", "line:7:gate", "other:{s7}:map"):
        assert not on_the_page(key), key


@runs_on("split")
def test_the_seven_steps_use_no_other_keys(http: httpx.Client, shop: Shop, danal: SimulatedGateway) -> None:
    first, second = Person(http).join(shop.concert_id), Person(http).join(shop.concert_id)
    http.get(f"concerts/{shop.concert_id}/schedules")
    http.get(f"schedules/{shop.concert_id}/seats", headers=first.with_pass)
    assert first.pay(first.reserve(shop.concert_id, [1]).json()["reservation_id"]).status_code == 201
    assert second.reserve(shop.concert_id, [1]).status_code == 409
    http.get(f"schedules/{shop.concert_id}/seats", headers=second.with_pass)
    http.delete("queue/tokens/current", headers=second.with_token)

    for endpoint in ("queue", "locks", "cache"):
        left = [key.decode() for key in redis(endpoint).keys(f"*{shop.concert_id}*")]  # type: ignore[arg-type]
        assert left
        assert [key for key in left if not on_the_page(key)] == []
