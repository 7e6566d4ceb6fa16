"""Reading the logs: the newest events without reading whole files, and new ones as they come."""

import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from encore_stack.function_logs.events import Event, events_of
from encore_stack.function_logs.sources import WRITTEN_AFTER_S_MAX, Source

_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are asked for. ``since`` is a Unix time in seconds, ``correlation`` the beginning of an id."""

    correlation: str | None = None
    since: float | None = None
    rank_min: int = 0
    machinery: bool = False
    """Also metrics, and what Lambda itself says."""

    def has(self, event: Event) -> bool:
        """Whether the event is asked for."""
        return (
            (self.machinery or not event.is_machinery)
            and event.rank >= self.rank_min
            and (self.since is None or event.time >= self.since)
            and (self.correlation is None or any(id.startswith(self.correlation) for id in event.correlations))
        )


def newest(
    sources: Iterable[Source], wanted: Wanted, count_max: int | None = None, ends: Mapping[Path, int] | None = None
) -> list[Event]:
    """The newest events that are wanted, oldest first; at most ``count_max``.

    Files are read from their ends (``ends`` says where that is taken to be) and no further than needed: what stands
    before an event that is too old was logged at most ``WRITTEN_AFTER_S_MAX`` later than that.
    """
    found: list[tuple[tuple[float, str, int, int], Event]] = []
    for source in sources:
        groups = source.groups_backwards(_lines_backwards(source, ends or {}))
        latest = _modified_at(source.path)
        for number, group in enumerate(groups):
            events = events_of(source.name, group, latest)
            if not events:
                continue
            latest = max(event.time for event in events)
            latest_before = latest + WRITTEN_AFTER_S_MAX
            if wanted.since is not None and latest_before < wanted.since:
                break
            if count_max is not None and len(found) == count_max and latest_before <= found[0][0][0]:
                break
            for index, event in enumerate(events):
                if wanted.has(event):
                    entry = ((event.time, source.name, -number, index), event)
                    if count_max is None or len(found) < count_max:
                        heapq.heappush(found, entry)
                    else:
                        heapq.heappushpop(found, entry)
    return [event for _, event in sorted(found, key=lambda entry: entry[0])]


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _lines_backwards(source: Source, ends: Mapping[Path, int]) -> Iterator[str]:
    """The lines of the file and of the older one, last one first."""
    for path in (source.path, source.older_path):
        try:
            with path.open("rb") as file:
                end = min(ends.get(path, file.seek(0, os.SEEK_END)), file.seek(0, os.SEEK_END))
                for line in _backwards(file, end):
                    yield line.decode(errors="replace")
        except FileNotFoundError:
            continue


def _backwards(file: BinaryIO, end: int) -> Iterator[bytes]:
    begun = b""
    while end:
        size = min(_CHUNK_BYTES, end)
        end -= size
        file.seek(end)
        begun, *lines = (file.read(size) + begun).split(b"\n")
        yield from reversed(lines)
    yield begun


class Follower:
    """What is appended to the logs from now on, also to those that appear, are begun anew or cut short meanwhile.

    ``find`` is asked for the sources at each poll.
    """

    def __init__(self, find: Callable[[], Iterable[Source]]) -> None:
        self._find = find
        self._tails = {source.path: _Tail(source, at_end=True) for source in find()}
        self.ends: Mapping[Path, int] = {path: tail.position for path, tail in self._tails.items()}
        """Where each file ended at the start: what stands before is not followed."""

    def poll(self, wanted: Wanted) -> list[Event]:
        """The wanted events that are new since the last poll, oldest first."""
        found: list[Event] = []
        for source in self._find():
            if source.path not in self._tails:
                self._tails[source.path] = _Tail(source)
            for group in source.groups(self._tails[source.path].read()):
                found += filter(wanted.has, events_of(source.name, group, _modified_at(source.path)))
        return sorted(found, key=lambda event: event.time)

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()


class _Tail:
    """The growing end of one file."""

    def __init__(self, source: Source, *, at_end: bool = False) -> None:
        self._path = source.path
        self._file: BinaryIO | None = None
        self._begun = b""
        self._open()
        if at_end and self._file:
            self._file.seek(0, os.SEEK_END)

    @property
    def position(self) -> int:
        return self._file.tell() if self._file else 0

    def read(self) -> list[str]:
        """The whole lines that have come."""
        lines = self._read_on()
        if self._was_replaced():
            lines += self._read_on()  # what came into the old file before it was put aside
            self.close()
            self._open()
            lines += self._read_on()
        return lines

    def _read_on(self) -> list[str]:
        if self._file is None:
            return []
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
            self._begun = b""
        *lines, self._begun = (self._begun + self._file.read()).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def _was_replaced(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        mine = os.fstat(self._file.fileno())
        return (mine.st_dev, mine.st_ino) != (found.st_dev, found.st_ino)

    def _open(self) -> None:
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            self._file = None
        self._begun = b""

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
