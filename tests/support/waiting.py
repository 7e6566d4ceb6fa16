"""Waiting for what nobody announces: look again until it is there, for a bounded time."""

import time
from collections.abc import Callable


def wait_for[Shown](
    show: Callable[[], Shown],
    wanted: Callable[[Shown], object] = bool,
    *,
    within_s: float = 30.0,
    every_s: float = 0.05,
) -> Shown:
    """What ``show`` shows, as soon as it is as wanted (by default: true). Fails with what it has shown last."""
    deadline_s = time.monotonic() + within_s
    while not wanted(shown := show()):
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {shown!r}"
        time.sleep(every_s)
    return shown
