"""What the modules of this package share."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Say = Callable[[str], None]
"""Takes one line of progress."""

_AT_ONCE = 4


class DeployError(Exception):
    """The deployment failed; the message names the resources and their reasons."""


def in_parallel(call: Callable[[Any], Any], items: Iterable[Any]) -> None:
    """Calls once for each item. Raises what a call raised."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(call, items))
