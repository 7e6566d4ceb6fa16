"""Servers that have replicas: none comes back as the master that it was; a stack that was stopped starts as it was."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from redis.exceptions import RedisError

from booking.platform.redis import redis
from encore_stack import redis_roles
from encore_stack.instance import FAILING_OVER, SENTINEL_SERVICE
from encore_stack.stack import Stack
from support.redis import end, roles, runs_on, settled_roles, wait_for_another_master

pytestmark = [runs_on(*FAILING_OVER), pytest.mark.usefixtures("healed")]

_KEY = "roles:{c1}:test"


@pytest.fixture
def master(redis_stack: Stack) -> str:
    return redis_roles.master_of(redis_stack.instance, _KEY)


def test_a_master_that_is_started_before_anybody_noticed_is_a_replica(redis_stack: Stack, master: str) -> None:
    end(redis_stack, master)
    redis_stack.start(master)

    another = redis_roles.master_of(redis_stack.instance, _KEY)
    assert another != master
    assert roles(redis_stack)[master] == another


def test_a_master_that_was_replaced_follows_who_replaced_it(redis_stack: Stack, master: str) -> None:
    redis_stack.stop(master)
    another = wait_for_another_master(redis_stack, master, _KEY)
    assert [part.health for part in redis_stack.status() if part.name == master] == ["held"]

    redis_stack.start(master)

    assert redis_roles.master_of(redis_stack.instance, _KEY) == another
    assert roles(redis_stack)[master] == another


def test_nothing_starts_a_dead_server_by_itself_and_up_does(redis_stack: Stack, master: str) -> None:
    end(redis_stack, master)
    another = wait_for_another_master(redis_stack, master, _KEY)

    assert redis_stack.supervisor.processes()[master].pid == 0
    assert redis_stack.up(["redis"]) == [master]
    assert roles(redis_stack)[master] == another


def test_without_the_rule_it_would_come_back_as_a_master(redis_stack: Stack, master: str) -> None:
    """What the rule is for: the supervisor alone starts what was there, if that is before anybody has noticed."""
    with nobody_fails_over(redis_stack):
        end(redis_stack, master)
        while redis_stack.supervisor.processes()[master].pid:
            pass
        redis_stack.supervisor.start_part(master)
        redis_stack.wait_healthy(master, 10)

        assert roles(redis_stack)[master] is None
        assert redis_roles.master_of(redis_stack.instance, _KEY) == master


@pytest.mark.parametrize("cut", [False, True], ids=["stopped", "power cut"])
def test_a_whole_stack_that_starts_again_is_as_it_was(redis_stack: Stack, master: str, cut: bool) -> None:
    end(redis_stack, master)
    wait_for_another_master(redis_stack, master, _KEY)
    redis_stack.start(master)
    before = settled_roles(redis_stack)
    redis("queue").set(_KEY, "kept")
    if cut:
        for part in (*redis_stack.instance.sentinels, *redis_stack.instance.redis_servers):
            end(redis_stack, part)
    else:
        redis_stack.down()

    redis_stack.up(["redis"])

    assert settled_roles(redis_stack) == before
    if not cut:  # a power cut may take the last second with it
        assert redis("queue").get(_KEY) == b"kept"


def test_status_shows_who_is_what(redis_stack: Stack, master: str, redis_topology: str) -> None:
    servers = redis_stack.instance.redis_servers
    shown = {part.name: part.role for part in redis_stack.status() if part.name in servers}

    assert shown[master] == "master"
    assert list(shown.values()).count("master") == {"sentinel": 1, "cluster": 3}[redis_topology]
    assert all(role in ("master", *(f"replica of {name}" for name in servers)) for role in shown.values())


@contextmanager
def nobody_fails_over(stack: Stack) -> Iterator[None]:
    """However long a server is away."""
    sentinels = stack.instance.sentinels
    usual_ms = 1_500 if sentinels else 1_000  # as redis_roles and cluster.conf have it

    def wait_ms(milliseconds: int) -> None:
        for name in sentinels or stack.instance.redis_servers:
            with suppress(RedisError), redis_roles.asking(stack.instance, name) as ask:
                if sentinels:
                    ask("SENTINEL", "SET", SENTINEL_SERVICE, "down-after-milliseconds", milliseconds)
                else:
                    ask("CONFIG", "SET", "cluster-node-timeout", milliseconds)

    wait_ms(60_000)
    try:
        yield
    finally:
        wait_ms(usual_ms)


def test_servers_do_not_drive_their_callers_from_the_cpu(redis_stack: Stack) -> None:
    servers = redis_stack.instance.redis_servers
    policies = {part.name: os.sched_getscheduler(part.pid) for part in redis_stack.status() if part.name in servers}
    assert policies == dict.fromkeys(servers, os.SCHED_BATCH)
