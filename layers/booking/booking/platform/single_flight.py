"""One reader fills a cache, the others wait for it a moment: what everybody who finds a cache cold goes through.

Each cache has a script of its own that looks and gives leave to read; its reply begins with one of these words.
"""

import random
import time
from collections.abc import Callable
from typing import Any

HERE, READ, WAIT = 1, 2, 3
"""It is in the cache; read it and store it; somebody else is reading it."""

_WAIT_S_MAX = 1.0
_BACKOFF_FIRST_S = 0.010
_BACKOFF_MAX_S = 0.100


def look_in_turn(look: Callable[[int], list[Any]]) -> list[Any]:
    """What the script says, asked again and again while that is WAIT. Raises as ``look``.

    ``look(1)`` is of somebody who has waited long enough and must get leave; before that it is ``look(0)``.
    """
    # Whoever waits in vain (the one who reads has died) gives up at a moment of their own, so that they do not all go
    # to Postgres together: the first of them who has read helps the rest.
    deadline_s = time.monotonic() + random.uniform(_WAIT_S_MAX / 2, _WAIT_S_MAX)
    backoff_s = _BACKOFF_FIRST_S
    while True:
        found = look(int(time.monotonic() >= deadline_s))
        if found[0] != WAIT:
            return found
        # Longer and longer: hundreds who look again every few milliseconds would slow down the one who reads.
        time.sleep(random.uniform(0, backoff_s))
        backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
