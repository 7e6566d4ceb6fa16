"""One line for each step with the time it took; a step that takes long shows that it is alive."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_ALIVE_TTY_S = 1.0
_ALIVE_S = 10.0
_SAID_S = 2.0
_WIDTH = 46


def line(title: str, result: str = "") -> None:
    """Print one finished step."""
    with _signs.changed:
        clear = "\r\033[K" if sys.stdout.isatty() else ""
        print(f"{clear}  {title:<{_WIDTH}} {result}".rstrip(), flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Times the block. Prints `title  1.2 s` at its end, nothing if it raises, and a sign of life while it runs."""
    started = time.monotonic()
    with alive(title):
        yield
    line(title, f"{time.monotonic() - started:.1f} s")


@contextmanager
def alive(title: str) -> Iterator[None]:
    """Shows a sign of life while the block runs, and nothing else. Blocks may overlap: the one begun last is shown."""
    block = (title, time.monotonic())
    _signs.begin(block)
    try:
        yield
    finally:
        _signs.end(block)


class Progress:
    """Says what is being done, at most every two seconds and on stderr: the answer may be JSON."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._next_s = time.monotonic() + _SAID_S

    def __call__(self, doing: str) -> None:
        if not self._quiet and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _SAID_S
            print(f"  {doing}", file=sys.stderr, flush=True)


class _SignsOfLife:
    """Of all blocks that run, shown by one thread, which ends with the last of them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        """Told when a block begins or ends. Whoever prints has it too, so that lines do not mix."""
        self._running: list[tuple[str, float]] = []
        self._thread: threading.Thread | None = None

    def begin(self, block: tuple[str, float]) -> None:
        with self.changed:
            self._running.append(block)
            self.changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._show, name="signs of life", daemon=True)
                self._thread.start()

    def end(self, block: tuple[str, float]) -> None:
        with self.changed:
            self._running.remove(block)
            self.changed.notify()
            if sys.stdout.isatty():
                print("\r\033[K", end="", flush=True)

    def _show(self) -> None:
        interval_s = _ALIVE_TTY_S if sys.stdout.isatty() else _ALIVE_S
        with self.changed:
            while self._running:
                title, started_s = self._running[-1]
                elapsed_s = time.monotonic() - started_s
                if self.changed.wait(interval_s - elapsed_s % interval_s):
                    continue
                elapsed_s = time.monotonic() - started_s
                if sys.stdout.isatty():
                    print(f"\r\033[K  {title:<{_WIDTH}} {elapsed_s:.0f} s ...", end="", flush=True)
                else:
                    print(f"  {title:<{_WIDTH}} ... {elapsed_s:.0f} s so far", flush=True)
            self._thread = None


_signs = _SignsOfLife()
