"""CloudFormation's function resource waits with botocore's waiters, which look once a second, twice for each update:
half a minute for the functions of one stack, for something done in milliseconds."""

from typing import Any


def apply() -> None:
    from botocore.waiter import Waiter

    wait = Waiter.wait

    def wait_briefly(self: Any, **arguments: Any) -> None:
        if "function" in self.name.lower():
            arguments.setdefault("WaiterConfig", {"Delay": 0.05, "MaxAttempts": 2400})
        wait(self, **arguments)

    Waiter.wait = wait_briefly
