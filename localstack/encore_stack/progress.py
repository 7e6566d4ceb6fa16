"""One line for each step with the time it took; a step that takes long shows that it is alive."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_ALIVE_TTY_S = 1.0
_ALIVE_S = 10.0
_WIDTH = 46
_lock = threading.Lock()
_running: list[tuple[str, float]] = []


def line(title: str, result: str = "") -> None:
    """Print one finished step."""
    with _lock:
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
    entry = (title, time.monotonic())
    with _lock:
        _running.append(entry)
        if len(_running) == 1:
            threading.Thread(target=_show_alive, daemon=True).start()
    try:
        yield
    finally:
        with _lock:
            _running.remove(entry)
            if sys.stdout.isatty():
                print("\r\033[K", end="", flush=True)


def _show_alive() -> None:
    interval_s = _ALIVE_TTY_S if sys.stdout.isatty() else _ALIVE_S
    while True:
        time.sleep(interval_s)
        with _lock:
            if not _running:
                return
            title, started = _running[-1]
            elapsed = time.monotonic() - started
            if sys.stdout.isatty():
                print(f"\r\033[K  {title:<{_WIDTH}} {elapsed:.0f} s ...", end="", flush=True)
            elif elapsed >= interval_s:
                print(f"  {title:<{_WIDTH}} ... {elapsed:.0f} s so far", flush=True)
