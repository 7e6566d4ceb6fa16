"""Random numbers for identifiers come from a stock instead of from the kernel, a few bytes at a time.

LocalStack makes about ten random identifiers for each request. Each asks the kernel, which takes a microsecond but
lets go of the interpreter lock meanwhile: with other requests waiting for it, that is ten changes of thread.
"""

import os
import threading
from collections.abc import Callable

STOCK_BYTES = 4096
SIZE_MAX = 64  # an identifier has 8 to 16
REPLACES = ("os:urandom",)


class Stock:
    """Gives random bytes, each once. Thread-safe."""

    def __init__(self, ask: Callable[[int], bytes]) -> None:
        self._ask = ask
        self.forget()

    def forget(self) -> None:
        """As new: a forked process must not give what its parent will give."""
        self._lock = threading.Lock()
        self._bytes, self._given = b"", 0

    def take(self, size: int, /) -> bytes:
        if not 0 <= size <= SIZE_MAX:
            return self._ask(size)
        with self._lock:
            if self._given + size > len(self._bytes):
                self._bytes, self._given = self._ask(STOCK_BYTES), 0
            self._given += size
            return self._bytes[self._given - size : self._given]


def apply() -> None:
    stock = Stock(os.urandom)
    os.register_at_fork(after_in_child=stock.forget)
    os.urandom = stock.take
