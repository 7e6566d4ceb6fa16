"""People who operate a sale with the verbs: who they are, and how they are told that something was not done."""

import getpass
import socket
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

from booking.platform.postgres import DatabaseAway
from booking.platform.problems import Refusal

_STACK_UP = "is the stack up? see scripts/status"
_LENGTH_MAX = 100


def operator_name() -> str:
    """What is kept with a change: who made it, and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"[:_LENGTH_MAX]


def exit_code(act: Callable[[], int], advice: Mapping[type[Exception], str] = MappingProxyType({})) -> int:
    """What ``act`` returns; 1, with the reason on stderr, where it is refused or the database is away. ``advice``: what
    else keeps it from being done, and what a person may do then."""
    expected: tuple[type[Exception], ...] = (Refusal, *advice)
    try:
        return act()
    except expected as refused:
        told = _STACK_UP if isinstance(refused, DatabaseAway) else advice.get(type(refused))
        print(f"error: {refused}" + (f"; {told}" if told else ""), file=sys.stderr)
        return 1
