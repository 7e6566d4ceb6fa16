"""Redis in each of the ways in which the stack runs it, as instances of the stack of these tests' own."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from encore_stack import redis_roles
from encore_stack.instance import REDIS_SERVERS, Instance
from encore_stack.stack import Stack

TOPOLOGIES = tuple(REDIS_SERVERS)


class RedisStacks:
    """Starts the servers of a topology when they are first asked for; they run until ``close``."""

    def __init__(self) -> None:
        self._stacks: dict[str, Stack] = {}

    def get(self, topology: str) -> Stack:
        """The running servers. A test that ends some of them starts them again."""
        if topology not in self._stacks:
            name = f"test-redis-{topology}"
            Stack(Instance.load(name)).down(wipe=True)  # what a run that was killed has left
            stack = self._stacks[topology] = Stack(Instance.load(name))
            stack.choose_redis(topology)
            stack.up(["redis"])
        return self._stacks[topology]

    def close(self) -> None:
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda stack: stack.down(wipe=True), self._stacks.values()))


def tell_masters(stack: Stack, *words: str | int) -> dict[str, Any]:
    """Send a command that has no key to every master; the answers, as the server gives them, by the parts' names."""
    answers = {}
    for name in stack.instance.redis_servers:
        if redis_roles.role_of(stack.instance, name).master is None:
            with redis_roles.asking(stack.instance, name) as ask:
                answers[name] = ask(*words)
    return answers
