"""A master of Redis dies or hangs while people join and poll: a pause, with refusals that say when to come back; then
everybody is where they were, by the tokens that they hold."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from redis.exceptions import ResponseError

from booking.platform.redis import RedisAway
from booking.platform.redis_keys import line_key
from booking.queue import read_token
from encore_stack import redis_roles
from encore_stack.instance import FAILING_OVER
from encore_stack.stack import Stack
from support.redis import end, roles, runs_on, wait_for_another_master

pytestmark = pytest.mark.usefixtures("healed")

_WAIT_S_MAX = 30
_COME_BACK_S = 0.05
"""The people of this test are told 2 s and are in a hurry."""


class Crowd:
    """People who go on asking, each in a thread of their own, until the block is left."""

    def __init__(self, asks: dict[str, Callable[[], object]]) -> None:
        self._asks = asks
        self._over = threading.Event()
        self._answered = {name: threading.Event() for name in asks}
        self.refused: list[RedisAway] = []
        self.faults: list[BaseException] = []

    @contextmanager
    def asking(self) -> Iterator["Crowd"]:
        threads = [threading.Thread(target=self._ask_on, args=item) for item in self._asks.items()]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        assert self.faults == []

    def wait_for_an_answer_each(self) -> None:
        """To a question asked after this moment."""
        for answered in self._answered.values():
            answered.clear()
        for answered in self._answered.values():  # the first may be to a question that was under way
            assert answered.wait(_WAIT_S_MAX), self.faults
            answered.clear()
        for name, answered in self._answered.items():
            assert answered.wait(_WAIT_S_MAX), f"{name} gets no answer any more: {self.refused[-1:]} {self.faults}"

    def _ask_on(self, name: str, ask: Callable[[], object]) -> None:
        while not self._over.is_set():
            try:
                ask()
                self._answered[name].set()
            except RedisAway as refused:
                self.refused.append(refused)
                self._over.wait(_COME_BACK_S)
            except BaseException as fault:
                self.faults.append(fault)
                return


@pytest.mark.race
@runs_on(*FAILING_OVER)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_master_is_a_pause_and_nobody_loses_their_place(open_line, redis_stack, how) -> None:
    line = open_line(capacity=1)
    waiting = [f"waiting {number}" for number in range(12)]
    for name in waiting:
        line.join(name)
    places = {name: read_token(line.tokens[name]).place for name in waiting}
    newcomers: list[str] = []
    joined = Counter[int]()

    def join_another(joiner: int) -> None:
        """A person whose join was refused tries again: whatever became of the first, they have one place."""
        name = f"joiner {joiner} {joined[joiner]}"
        line.join(name)
        joined[joiner] += 1
        newcomers.append(name)

    asks: dict[str, Callable[[], object]] = {name: lambda name=name: line.poll(name) for name in waiting}  # type: ignore[misc]
    asks |= {f"joiner {number}": lambda number=number: join_another(number) for number in range(4)}  # type: ignore[misc]
    gate = line_key(line.concert_id, "gate")
    lost = redis_roles.master_of(redis_stack.instance, gate)
    with Crowd(asks).asking() as crowd:
        crowd.wait_for_an_answer_each()
        assert crowd.refused == []
        end(redis_stack, lost, how)
        master = wait_for_another_master(redis_stack, lost, gate)
        crowd.wait_for_an_answer_each()

    assert crowd.refused, "somebody must have been told to come back: nobody hangs until a replica is promoted"
    assert {refused.retry_after_s for refused in crowd.refused} == {2}
    assert {name: read_token(line.tokens[name]).place for name in waiting} == places
    in_order = sorted([*waiting, *newcomers], key=lambda name: read_token(line.tokens[name]).place)
    for _ in range(2):  # who was forgotten is back after the first poll of everybody
        turns = [line.poll(name) for name in in_order]
    assert [turn.ahead for turn in turns] == [0, *range(len(in_order) - 1)]
    assert turns[0].state == "admitted"
    assert line.inside() == 1

    if how == signal.SIGSTOP:
        end(redis_stack, lost, signal.SIGCONT)
        wait_until_it_takes_no_writes(redis_stack, lost, gate)
        end(redis_stack, lost)
    redis_stack.start(lost)
    assert roles(redis_stack)[lost] == master


def wait_until_it_takes_no_writes(stack: Stack, part: str, key: str) -> None:
    """A server that hung believes that it is the master until it is told, which Sentinel does ten seconds later. What
    is written there would be lost. It refuses it at once, for it has lost its replicas; a node of a cluster, when it
    has heard of the other."""
    tries = 1 if stack.instance.redis_topology == "sentinel" else _WAIT_S_MAX * 10
    for _ in range(tries):
        with redis_roles.asking(stack.instance, part) as ask:
            try:
                ask("HSET", key, "written", "nowhere")
            except ResponseError as refused:
                assert (refused.status_code or str(refused).split()[0]) in ("NOREPLICAS", "READONLY", "MOVED")
                return
        time.sleep(0.1)
    raise AssertionError(f"{part} still takes writes")


@runs_on("sentinel")
def test_one_of_three_sentinels_may_be_down(open_line, redis_stack) -> None:
    line = open_line(capacity=1)
    for name in ("ann", "bob", "eve"):
        line.join(name)
    lost = redis_roles.master_of(redis_stack.instance)

    end(redis_stack, "sentinel")
    end(redis_stack, lost)
    wait_for_another_master(redis_stack, lost)

    with Crowd({"bob": lambda: line.poll("bob"), "eve": lambda: line.poll("eve")}).asking() as crowd:
        crowd.wait_for_an_answer_each()
    assert [line.poll(name).position for name in ("ann", "bob", "eve")] == [0, 1, 2]
