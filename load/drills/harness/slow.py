"""Processes made slow, not dead: stopped and continued in short turns, so that they have a share of the time only.

A signal needs no rights that a sandbox refuses, and reaches everything in the process (its collector, its disk, its
network) as a starved host would; limits of cgroups or of the network would need root and a kernel that allows them.
"""

import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from encore_stack.functions import STACK_NAME
from encore_stack.instance import Instance, function_environment


class Slowed:
    """Slows processes until ``heal``. ``find`` names their ids; it is asked in each turn, since some come later."""

    def __init__(self, find: Callable[[], Collection[int]], *, stopped_s: float, running_s: float) -> None:
        self._find = find
        self._stopped_s, self._running_s = stopped_s, running_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._take_turns, daemon=True)

    def begin(self) -> Self:
        self._thread.start()
        return self

    def heal(self) -> None:
        """They run as ever; safe to call again."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _take_turns(self) -> None:
        while not self._over.is_set():
            stopped = [pid for pid in self._find() if _sent(pid, signal.SIGSTOP)]
            self._over.wait(self._stopped_s)
            for pid in stopped:
                _sent(pid, signal.SIGCONT)
            self._over.wait(self._running_s)


def processes_of_function(instance: Instance, name: str) -> list[int]:
    """The environments in which this instance's LocalStack runs a function, and the process they are forked from."""
    database_url = function_environment(instance)["ENCORE_DATABASE_URL"]
    wanted = {f"AWS_LAMBDA_FUNCTION_NAME={STACK_NAME}-{name}".encode(), f"ENCORE_DATABASE_URL={database_url}".encode()}
    return [pid for pid, environment in _environments() if wanted <= environment]


def _environments() -> Iterator[tuple[int, set[bytes]]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                yield int(folder.name), set((folder / "environ").read_bytes().split(b"\0"))


def _sent(pid: int, what: signal.Signals) -> bool:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return False
    return True
