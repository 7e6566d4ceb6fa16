"""Libraries of Lua functions: whoever misses one loads it, versions do not meet, and replicas have them too."""

from collections.abc import Iterator

import pytest

from booking.platform.redis import Call, Function, Library, redis, run_together
from encore_stack import redis_roles
from encore_stack.stack import Stack
from support.redis import runs_on, tell_masters

_KEY = "lua:{c1}:test"
_SHARED = """
local ADDED
local function take_arguments() ADDED = tonumber(ARGV[1]) end
"""
_ADD = "return redis.call('INCRBY', KEYS[1], ADDED)\n"


def add(body: str = _ADD) -> Function:
    return Library("encore_test", _SHARED, {"add": body}).functions()["add"]


@pytest.fixture(autouse=True)
def number() -> Iterator[None]:
    redis("queue").delete(_KEY)
    yield
    redis("queue").delete(_KEY)


def test_each_call_has_its_own_arguments() -> None:
    assert [add()(redis("queue"), [_KEY], [added]) for added in (1, 2, 3)] == [1, 3, 6]


def test_a_server_that_does_not_know_a_library_is_given_it(redis_stack: Stack) -> None:
    tell_masters(redis_stack, "FUNCTION", "FLUSH")
    assert add()(redis("queue"), [_KEY], [1]) == 1

    tell_masters(redis_stack, "FUNCTION", "FLUSH")
    run_together([Call("queue", add(), [_KEY], [1]), Call("queue", add(), [_KEY], [1])])
    assert redis("queue").get(_KEY) == b"3"


def test_an_older_and_a_newer_version_live_side_by_side() -> None:
    older, newer = add(), add(_ADD.replace("ADDED", "10 * ADDED"))
    assert [version(redis("queue"), [_KEY], [1]) for version in (older, newer, older)] == [1, 11, 12]


@runs_on("sentinel")
def test_replicas_have_what_was_loaded(redis_stack: Stack) -> None:
    """So the next master knows it, and a failover is not followed by loading."""
    add()(redis("queue"), [_KEY], [1])
    redis("queue").wait(len(redis_stack.instance.redis_servers) - 1, 1000)
    for name in redis_stack.instance.redis_servers:
        with redis_roles.asking(redis_stack.instance, name) as ask:
            assert "encore_test" in str(ask("FUNCTION", "LIST")), name
