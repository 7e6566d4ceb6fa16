"""Functions that run what was just saved: a pool whose processes are replaced when a file of their folders changes.

Knows nothing of LocalStack. Each call first compares the files' stats with those of the code it is about to run, so
the call after a save runs what was saved, whoever saved it and however (in place, by renaming, many files at once).
Calls under way finish on the code that they began with. A background loop, for which nobody waits, does not: its call
is begun again on the new code as soon as that could be loaded.

A keeper thread does the same a few times a second for the functions that were called since they were last loaded, so
that the next call finds them ready; the others wait for their next call. Every loading is a line of the reload log.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .pool import Call, FunctionPool, FunctionSpec, InitFailed, Outcome, PoolClosed

SUFFIXES = (".py", ".sql", ".lua", ".json", ".yaml", ".yml", ".toml", ".txt")
SETTLE_S = 0.05
SETTLE_S_MAX = 0.5
RETRY_S_MAX = 2.0
KEEPER_S = 0.25
LOG_BYTES_MAX = 1024 * 1024

Fingerprint = frozenset[tuple[str, int, int, int, int]]


def fingerprint(folders: tuple[str, ...]) -> Fingerprint:
    """Which files are there, each with its times, size and inode.

    Not what editors and Python leave beside them. Folders behind symbolic links are not looked into.
    """
    found = set()
    pending = list(folders)
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:  # it may vanish meanwhile
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__pycache__":
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.name.endswith(SUFFIXES):
                    with contextlib.suppress(OSError):
                        stat = entry.stat()
                        # The change time too: the modification time can be set, and some tools set it back.
                        found.add((entry.path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))
    return frozenset(found)


def settled_fingerprint(folders: tuple[str, ...], seen: Fingerprint) -> Fingerprint:
    """The fingerprint once nothing changes for a moment: a file may be half written, more of them may follow."""
    deadline = time.monotonic() + SETTLE_S_MAX
    while time.monotonic() < deadline:
        time.sleep(SETTLE_S)
        now = fingerprint(folders)
        if now == seen:
            break
        seen = now
    return seen


class ReloadLog:
    """One line of JSON for each loading, for whoever watches: at, function, seconds, first, error."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()

    def write(self, function: str, seconds: float, first: bool, error: dict[str, Any] | None) -> None:
        """`error` is Lambda-shaped. Never raises: watching must not harm the calls."""
        if self._path is None:
            return
        event = {"at": time.time(), "function": function, "seconds": seconds, "first": first, "error": error}
        with self._lock, contextlib.suppress(OSError):
            if self._path.exists() and self._path.stat().st_size > LOG_BYTES_MAX:
                self._path.unlink()
            with self._path.open("a") as file:
                file.write(json.dumps(event) + "\n")


class HotPool:
    """A FunctionPool for each state of the files, one after the other. Thread-safe.

    `is_loop`: the function is a background loop, whose calls are begun again when its code changes.
    """

    def __init__(self, spec: FunctionSpec, log: ReloadLog, *, is_loop: bool = False) -> None:
        self.spec = spec
        self.is_loop = is_loop
        self._log = log
        self._lock = threading.Lock()  # held while loading: calls that come meanwhile want the new code
        self._pool: FunctionPool | None = None
        self._seen: Fingerprint | None = None
        self._called = False
        self._closed = False
        self._retired: list[FunctionPool] = []  # of a loop, with calls under way
        self._begun_again: set[FunctionPool] = set()
        keeper.keep(self)

    @property
    def calls_under_way(self) -> int:
        """How many calls have an environment, or are getting one; also of code that was replaced meanwhile."""
        return sum(each.calls_under_way for each in (self._pool, *self._retired) if each is not None)

    def invoke(self, call: Call) -> Outcome:
        """Runs one call to its end on the code that is on disk now. Raises what FunctionPool.invoke raises."""
        while True:
            pool = self._present_pool()
            try:
                outcome = pool.invoke(call)
            except PoolClosed:  # replaced before the call had begun
                continue
            if not (pool.was_cut_off and self._begin_again(pool)):
                return outcome

    def _begin_again(self, pool: FunctionPool) -> bool:
        """One call for each state of the code: a leader and its stand-by that began together would end together."""
        with self._lock:
            first = not self._closed and pool not in self._begun_again
            self._begun_again.add(pool)
            return first

    def _present_pool(self) -> FunctionPool:
        with self._lock:
            if self._closed:
                raise PoolClosed(self.spec.name)
            self._called = True
            self._load_changes(for_call=True)
            assert self._pool is not None
            return self._pool

    def refresh(self, look: Callable[[str], Fingerprint] | None = None) -> None:
        """Loads what has changed, if the function was called since it was last loaded. `look`: at one folder."""
        if not self._called or (look and self._seen == frozenset().union(*map(look, self.spec.watched))):
            return
        with self._lock:
            if self._called and not self._closed and self._load_changes(for_call=False):
                self._called = self.is_loop  # a loop's call may be under way for a minute

    # -- loading; with the lock held --

    def _load_changes(self, *, for_call: bool) -> bool:
        """Whether there was something to load."""
        seen = fingerprint(self.spec.watched)
        if self._pool is not None and seen == self._seen:
            return False
        started, first = time.monotonic(), self._pool is None
        if not first:
            seen = settled_fingerprint(self.spec.watched, seen)
        error = self._load(seen, for_call=for_call)
        while error and time.monotonic() < started + RETRY_S_MAX and self._seen != fingerprint(self.spec.watched):
            # It was saved while it was read.
            error = self._load(settled_fingerprint(self.spec.watched, seen), for_call=for_call)
        if error is None:
            self._cut_off_retired()
        self._log.write(self.spec.name, time.monotonic() - started, first, error)
        return True

    def _load(self, seen: Fingerprint, *, for_call: bool) -> dict[str, Any] | None:
        """Replaces the pool; returns the error if the new code cannot be imported."""
        # The fingerprint is older than the import: what is saved in between is a change again.
        previous, self._pool, self._seen = self._pool, FunctionPool(self.spec), seen
        error = None
        try:
            self._pool.warm(for_call=for_call)
        except InitFailed as failed:
            error = failed.body
        if previous is not None:
            if self.is_loop:
                self._retired.append(previous)
            previous.close()
        return error

    def _cut_off_retired(self) -> None:
        """Not before the new code could be loaded: until then the old does the work."""
        retired, self._retired, self._begun_again = self._retired, [], set()
        for pool in retired:
            pool.cut_off()

    def close(self) -> None:
        """No new calls; those under way finish."""
        keeper.forget(self)
        with self._lock:
            self._closed = True
            if self._pool is not None:
                self._pool.close()

    def cut_off(self) -> None:
        """As close, but calls under way end too."""
        self.close()
        for each in (self._pool, *self._retired):
            if each is not None:
                each.cut_off()


class _Keeper:
    """One thread for all hot pools, only while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: set[HotPool] = set()
        self._runs = False

    def keep(self, pool: HotPool) -> None:
        with self._lock:
            self._pools.add(pool)
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="encore-hot-reload", daemon=True).start()

    def forget(self, pool: HotPool) -> None:
        with self._lock:
            self._pools.discard(pool)

    def _run(self) -> None:
        while True:
            time.sleep(KEEPER_S)
            with self._lock:
                pools = list(self._pools)
                if not pools:
                    self._runs = False
                    return
            look = functools.cache(lambda folder: fingerprint((folder,)))  # many functions share a layer
            for pool in pools:
                with contextlib.suppress(Exception):  # whatever it is, the next call meets it and answers it
                    pool.refresh(look)


keeper = _Keeper()
