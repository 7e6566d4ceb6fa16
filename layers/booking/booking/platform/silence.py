"""What this process's threads know of a server that lets questions time out: it hangs, or its network is cut."""

import threading
import time
from collections.abc import Callable

_ANSWERED_LATELY_S = 0.1


class Silence:
    """A request asks several times, and each would cost a whole timeout. So nobody asks for a while after a timeout;
    then one thread tries, and the others fail at once until it knows more.

    ``asking_s`` says how long the one who tries may take, in seconds.
    """

    def __init__(self, asking_s: Callable[[], float]) -> None:
        self._asking_s = asking_s
        self._until_s: float | None = None
        self._answered_s = float("-inf")
        self._lock = threading.Lock()

    def refuses(self) -> bool:
        """Whether a question is to fail without being asked."""
        if self._until_s is None:
            return False
        with self._lock:
            now_s = time.monotonic()
            if now_s < (self._until_s or 0):
                return True
            self._until_s = now_s + self._asking_s()  # for the others, while this thread asks
            return False

    def heard(self, silent_s: float) -> None:
        """Tell what became of a question: for so long nobody shall ask again (0: it was answered).

        Somebody who could not ask does not speak for others who were answered a moment ago.
        """
        now_s = time.monotonic()
        if silent_s:
            if now_s - self._answered_s > _ANSWERED_LATELY_S:
                self._until_s = now_s + silent_s
            return
        self._answered_s = now_s
        if self._until_s is not None:
            self._until_s = None
