"""The clients of Sentinel and of a cluster: they follow the master, each for a bounded time."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from redis.connection import Connection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from booking.platform import redis as redis_module
from booking.platform import redis_client, redis_sentinel, silence
from booking.platform.redis import Call, RedisAway, Script, redis, redis_away_refuses, run_together
from encore_stack import redis_roles
from encore_stack.instance import SENTINEL_SERVICE, Instance
from encore_stack.stack import Stack
from support.redis import roles, runs_on, tell_masters
from support.waiting import wait_for

_KEY = "clients:{c1}:test"
_SET = Script("redis.call('SET', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1]) return 'OK'")


@pytest.fixture(autouse=True)
def fresh_clients() -> Iterator[None]:
    """The test opens this thread's clients, with its settings, and nobody knows anything of the servers yet."""

    def forget() -> None:
        for known in (redis_module._connections.__dict__, redis_client._silences, redis_sentinel._reigns):
            known.clear()

    forget()
    yield
    forget()


@pytest.fixture
def count_connects(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many connections have been tried to be opened since the last look."""
    opened: list[str] = []
    connect = Connection._connect

    def counted(connection: Connection) -> object:
        opened.append(connection.host)
        return connect(connection)

    monkeypatch.setattr(Connection, "_connect", counted)

    def count() -> int:
        number = len(opened)
        opened.clear()
        return number

    return count


# --- Sentinel ------------------------------------------------------------------------------------------------------


@runs_on("sentinel")
@pytest.mark.usefixtures("healed")
def test_who_meets_a_replica_asks_for_the_master(redis_stack: Stack) -> None:
    """The master becomes a replica while connections to it stay open, as after an operator's switch."""
    before = redis_roles.master_of(redis_stack.instance)
    redis("queue").set(_KEY, "before")
    after = next(name for name, master in roles(redis_stack).items() if master == before)
    errors = error_count(redis_stack.instance, before, "READONLY")

    switch_by_hand(redis_stack, after)
    redis("queue").set(_KEY, "after")
    run_together([Call("locks", _SET, [_KEY, _KEY + "2"], ["together"])])

    assert error_count(redis_stack.instance, before, "READONLY") == errors + 1
    assert redis("queue").get(_KEY + "2") == b"together"
    assert roles(redis_stack)[after] is None


@runs_on("sentinel")
def test_a_replica_is_not_asked_even_when_a_sentinel_names_it(
    redis_stack: Stack, monkeypatch: pytest.MonkeyPatch, use_settings: Callable[..., None]
) -> None:
    """A sentinel that has not heard of the failover names a server that would answer reads from the past."""
    replica = next(name for name, master in roles(redis_stack).items() if master)
    stale = ("127.0.0.1", redis_stack.instance.ports[replica])
    use_settings(redis_timeout_s=0.2)
    monkeypatch.setattr(redis_sentinel.Sentinel, "discover_master", lambda *_: stale)

    with pytest.raises(RedisError, match="is a replica now"):
        redis("cache").get(_KEY)


@runs_on("sentinel")
@pytest.mark.usefixtures("healed")
def test_when_another_thread_has_found_another_master_nobody_asks_the_old_one(redis_stack: Stack) -> None:
    """A server that hangs costs each thread a timeout, if each has to find out by itself."""
    before = redis_roles.master_of(redis_stack.instance)
    after = next(name for name, master in roles(redis_stack).items() if master == before)
    redis("queue").set(_KEY, "before")
    errors = error_count(redis_stack.instance, before, "READONLY")

    switch_by_hand(redis_stack, after)
    with ThreadPoolExecutor(1) as another:
        another.submit(lambda: redis("queue").set(_KEY, "after")).result()
    redis("queue").set(_KEY, "after")

    assert error_count(redis_stack.instance, before, "READONLY") == errors


def test_without_a_master_one_thread_looks_and_the_others_fail_at_once(
    free_port: Callable[[], int],
    use_settings: Callable[..., None],
    count_connects: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_settings(queue_redis_url=f"redis+sentinel://127.0.0.1:{free_port()}/encore/0", redis_timeout_s=0.2)
    monkeypatch.setattr(redis_sentinel, "_LEADERLESS_S", 60.0)

    with pytest.raises(RedisAway) as refused, redis_away_refuses():
        redis("queue").get(_KEY)
    assert refused.value.retry_after_s == 2
    assert count_connects() > 1

    with ThreadPoolExecutor(4) as threads:
        for asked in [threads.submit(lambda: redis("queue").get(_KEY)) for _ in range(8)]:
            assert isinstance(asked.exception(), RedisError)
    assert count_connects() == 0


@runs_on("sentinel")
def test_who_finds_no_master_does_not_speak_for_those_who_have_one(
    redis_stack: Stack, use_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentinel that is slow to answer one new connection is no reason to refuse everybody else."""
    use_settings(redis_timeout_s=0.2)
    monkeypatch.setattr(redis_sentinel, "_LEADERLESS_S", 60.0)
    monkeypatch.setattr(silence, "_ANSWERED_LATELY_S", 60.0)

    def no_master(*_: object) -> object:
        raise RedisConnectionError("no sentinel has answered in time")

    redis("queue").get(_KEY)
    monkeypatch.setattr(redis_sentinel.Sentinel, "discover_master", no_master)
    with ThreadPoolExecutor(1) as another:
        assert isinstance(another.submit(lambda: redis("queue").get(_KEY)).exception(), RedisConnectionError)
    redis("queue").get(_KEY)


def switch_by_hand(stack: Stack, to: str) -> None:
    """Make another server the master without ending anybody's connection, and tell the sentinels."""
    instance = stack.instance
    port = instance.ports[to]
    for name in instance.sentinels:
        with redis_roles.asking(instance, name) as ask:
            ask("SENTINEL", "REMOVE", SENTINEL_SERVICE)
    for name in sorted(instance.redis_servers, key=lambda name: name != to):
        with redis_roles.asking(instance, name) as ask:
            ask("REPLICAOF", "NO", "ONE") if name == to else ask("REPLICAOF", "127.0.0.1", port)
    for name in instance.sentinels:
        with redis_roles.asking(instance, name) as ask:
            ask("SENTINEL", "MONITOR", SENTINEL_SERVICE, "127.0.0.1", port, 2)
            ask("SENTINEL", "SET", SENTINEL_SERVICE, "down-after-milliseconds", 1500)
            ask("SENTINEL", "SET", SENTINEL_SERVICE, "failover-timeout", 2000)


# --- Cluster -------------------------------------------------------------------------------------------------------


@runs_on("cluster")
def test_keys_go_to_the_masters_of_their_slots(redis_stack: Stack) -> None:
    tags = [f"{{c{number}}}" for number in range(12)]
    for tag in tags:
        redis("queue").set(f"clients:{tag}:here", tag)

    kept = tell_masters(redis_stack, "KEYS", "clients:*:here")

    assert sorted(len(keys) for keys in kept.values()) > [0, 0, 0]
    assert {key.decode() for keys in kept.values() for key in keys} == {f"clients:{tag}:here" for tag in tags}
    assert [redis("cache").get(f"clients:{tag}:here") for tag in tags] == [tag.encode() for tag in tags]


@runs_on("cluster")
def test_calls_for_several_masters_are_one_trip_to_each(redis_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"clients:{{c{number}}}:" for number in range(12)]
    calls = [Call("locks", _SET, [name + "a", name + "b"], [number]) for number, name in enumerate(names)]
    run_together(calls)  # opens the connections, loads the script
    sent: list[object] = []
    send = Connection.send_packed_command

    def noted(connection: Connection, *args: Any, **options: Any) -> None:
        sent.append(connection)
        send(connection, *args, **options)

    monkeypatch.setattr(Connection, "send_packed_command", noted)

    run_together(calls)
    trips = len(sent)

    owners = {redis_roles.master_of(redis_stack.instance, name) for name in names}
    assert trips == len(owners) == 3
    assert [redis("locks").get(name + "b") for name in names] == [str(number).encode() for number in range(12)]


@runs_on("cluster")
def test_a_command_without_a_key_is_refused() -> None:
    client = redis("queue")
    for ask in (client.ping, client.dbsize, client.script_flush, lambda: client.eval("return 1", 0)):
        with pytest.raises(ValueError, match="names no key"):
            ask()


@runs_on("cluster")
def test_keys_of_different_slots_are_refused_by_the_server() -> None:
    with pytest.raises(ResponseError):
        redis("queue").delete("clients:{c1}:a", "clients:{c2}:a")


@runs_on("cluster")
def test_a_slot_may_move_while_it_is_used(redis_stack: Stack, use_settings: Callable[..., None]) -> None:
    use_settings(redis_timeout_s=10)
    a, b, new = (f"clients:{{c77}}:{name}" for name in ("a", "b", "new"))
    run_together([Call("queue", _SET, [a, b], ["before"])])
    slot = SlotMoving(redis_stack, a)

    with slot.moving():
        redis("queue").set(new, "asked")  # -ASK: the key is not where the slot still belongs
        slot.move_keys(a)
        with ThreadPoolExecutor(1) as another:
            # -TRYAGAIN: one of its keys is here, the other there.
            waiting = another.submit(lambda: _SET(redis("queue"), [a, b], ["meanwhile"]))
            slot.wait_for_refusals("TRYAGAIN")
            slot.move_keys(b)
            assert waiting.result(20) == b"OK"

    assert [redis("queue").get(key) for key in (a, b, new)] == [b"meanwhile", b"meanwhile", b"asked"]  # -MOVED
    assert slot.refusals("ASK") and slot.refusals("MOVED")


def test_a_cluster_that_is_away_is_away_at_once(
    free_port: Callable[[], int], use_settings: Callable[..., None], count_connects: Callable[[], int]
) -> None:
    use_settings(queue_redis_url=f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}")

    with pytest.raises(RedisAway), redis_away_refuses():
        redis("queue").get(_KEY)
    assert count_connects() == 2
    with pytest.raises(RedisError):
        run_together([Call("queue", _SET, [_KEY, _KEY + "2"], ["x"])])


class SlotMoving:
    """A slot on its way from the master that has it to another."""

    def __init__(self, stack: Stack, key: str) -> None:
        self._instance = stack.instance
        self._slot = key_slot(key.encode())
        self._from = redis_roles.master_of(self._instance, key)
        self._to = next(name for name, master in roles(stack).items() if master is None and name != self._from)
        self._before: dict[str, int] = {}
        self._before = {kind: self.refusals(kind) for kind in ("ASK", "TRYAGAIN", "MOVED")}

    @contextmanager
    def moving(self) -> Iterator[None]:
        ids = {name: self._ask(name, "CLUSTER", "MYID").decode() for name in (self._from, self._to)}
        self._ask(self._to, "CLUSTER", "SETSLOT", self._slot, "IMPORTING", ids[self._from])
        self._ask(self._from, "CLUSTER", "SETSLOT", self._slot, "MIGRATING", ids[self._to])
        yield
        for name in (self._to, self._from):
            self._ask(name, "CLUSTER", "SETSLOT", self._slot, "NODE", ids[self._to])

    def move_keys(self, *keys: str) -> None:
        self._ask(self._from, "MIGRATE", "127.0.0.1", self._instance.ports[self._to], "", 0, 5_000, "KEYS", *keys)

    def refusals(self, kind: str) -> int:
        """How often the slot's former owner has refused a command in this way since this object was made."""
        return error_count(self._instance, self._from, kind) - self._before.get(kind, 0)

    def wait_for_refusals(self, kind: str) -> None:
        wait_for(lambda: self.refusals(kind))

    def _ask(self, name: str, *words: str | int) -> Any:
        with redis_roles.asking(self._instance, name) as ask:
            return ask(*words)


def error_count(instance: Instance, name: str, kind: str) -> int:
    """How many commands a server has refused with this word."""
    with redis_roles.asking(instance, name) as ask:
        lines = ask("INFO", "errorstats").decode().splitlines()
    return sum(int(line.partition("=")[2]) for line in lines if line.startswith(f"errorstat_{kind}:"))
