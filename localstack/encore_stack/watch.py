"""scripts/up --watch, once the stack is up: does what has to follow a save, and tells what came of it.

The functions reload by themselves: they are deployed as folders, and the executor looks at the files before each call
(lambda_executor/hot_reload). Here their reload log is told, and what they cannot do is done: SQL functions and
migrations are applied, a changed template is deployed, the fast gateway gets new workers.

Files are looked at four times a second, as the executor does at each call: 130 stats cost 1 to 2 % of a core, see every
way of saving, and need neither inotify (which sees nothing on some shared folders) nor a package for it.
"""

import fcntl
import json
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from encore_stack import progress
from encore_stack.functions import DEPLOYED_PREFIX
from encore_stack.instance import Instance
from encore_stack.parts.localstack import is_hot
from encore_stack.stack import Stack, StackError

MIGRATE, DEPLOY, GATEWAY = "migrate", "deploy", "gateway"

_TREES = ("functions", "layers/booking", "localstack/fast_gateway")
_FILES = ("template.yaml", "layers/runtime/requirements.lock")
_SUFFIXES = (".py", ".sql", ".lua")
_POLL_S = 0.25
_QUIET_S = 0.5
"""So long after the last save the slow work begins: saves come in bursts."""
_LAYER_HOLD_S = 1.5
"""A layer is loaded by one function after the other: so long nothing more has come, then all are told in one line."""
_LOOK_AT_STACK_S = 2.0
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')

Stats = dict[str, tuple[int, int, int, int]]
Work = Mapping[str, Callable[[], object]]


class Watch:
    """Follows the files of the stack's project from when the object is made.

    `work` does what the three kinds stand for; it raises StackError with words for a person.
    """

    def __init__(self, stack: Stack, work: Work) -> None:
        self._stack = stack
        self._instance = stack.instance
        self._project = stack.instance.project_dir
        self._work = work
        self._stats = watched_files(self._project)
        self._reloads = ReloadLog(stack.instance)
        self._wanted: set[str] = set()
        self._saved_at = 0.0
        self._hold_s = 0.0
        self._job: Future[None] | None = None
        self._unreadable: dict[Path, str] = {}
        """Python files that do not compile, with the line where."""
        self._looked_at_stack = time.monotonic()

    def run(self) -> int:
        """Until Ctrl-C, or until there is nothing more to watch. Returns the exit code."""
        self._tell_how()
        with ThreadPoolExecutor(1) as worker:
            try:
                while (end := self._why_end()) is None:
                    time.sleep(_POLL_S)
                    self._notice_saves()
                    self._tell_reloads()
                    self._begin_work(worker)
            except KeyboardInterrupt:
                end = (
                    "no longer watching; the stack stays up, and its functions go on running the files as they are\n"
                    "  scripts/up deploys the packaged code again"
                )
            print(f"\n{end}", flush=True)
        return 0

    def _tell_how(self) -> None:
        print(f"watching {', '.join((*_TREES, *_FILES))}")
        print("  the next request runs what was just saved; requests under way finish on the code they began with")
        print("  Ctrl-C stops watching and leaves the stack up; scripts/up then deploys the packaged code again\n")

    def _why_end(self) -> str | None:
        if not is_hot(self._instance):
            return "no longer watching: another scripts/up has deployed the packaged code"
        if time.monotonic() - self._looked_at_stack > _LOOK_AT_STACK_S:
            self._looked_at_stack = time.monotonic()
            if not self._stack.supervisor.is_running():
                return "no longer watching: the stack is down"
        return None

    # -- what the functions did --

    def _tell_reloads(self) -> None:
        loaded, broken = self._reloads.take(self._hold_s)
        if loaded:
            began, ended = min(each["at"] - each["seconds"] for each in loaded), max(each["at"] for each in loaded)
            _say(f"reloaded {_names(loaded)} in {ended - began:.1f} s")
        by_error: dict[str, list[dict[str, Any]]] = {}
        for event in broken:
            by_error.setdefault(self._describe(event["error"]), []).append(event)
        for error, events in by_error.items():
            _say(f"{_names(events)}: every call fails until this is mended{error}")

    def _describe(self, error: Mapping[str, Any]) -> str:
        """The error in words, with file, line and the code there; nothing if that was told when it was saved."""
        place, code = "", list[str]()
        for part in error.get("stackTrace") or []:
            if found := _FRAME.search(part):
                if self._unreadable.get(Path(found["file"])) == found["line"]:
                    return ""
                place = f"{self._relative(Path(found['file']))}:{found['line']}: "
                code = part.splitlines()[1:]
        return _lines(f"{place}{error['errorType']}: {error['errorMessage']}", *code)

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self._project) if path.is_relative_to(self._project) else path

    # -- what people did --

    def _notice_saves(self) -> None:
        stats = watched_files(self._project)
        changed = sorted(Path(name) for name in {*stats, *self._stats} if stats.get(name) != self._stats.get(name))
        self._stats = stats
        if not changed:
            return
        self._saved_at = time.monotonic()
        only_functions = all(path.is_relative_to(self._project / "functions") for path in changed)
        self._hold_s = 0.0 if only_functions else _LAYER_HOLD_S
        names = [str(self._relative(path)) for path in changed]
        _say(f"saved {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}")
        for path in changed:
            self._wanted |= work_after(path.relative_to(self._project))
            self._check_syntax(path)

    def _check_syntax(self, path: Path) -> None:
        """Now: a function that nobody calls would not tell before its next call."""
        was_unreadable = self._unreadable.pop(path, None) is not None
        if path.suffix != ".py" or str(path) not in self._stats:
            return
        try:
            compile(path.read_bytes(), path, "exec", dont_inherit=True)
        except FileNotFoundError:
            return
        except SyntaxError as error:
            self._unreadable[path] = str(error.lineno)
            code = traceback.format_exception_only(error)[1:-1]
            _say(f"{self._relative(path)}:{error.lineno}: {type(error).__name__}: {error.msg}{_lines(*code)}")
        else:
            if was_unreadable:
                _say(f"{self._relative(path)} can be read again")

    # -- what follows --

    def _begin_work(self, worker: ThreadPoolExecutor) -> None:
        if self._job is not None and not self._job.done():
            return
        wanted = {kind for kind in self._wanted if not (kind == GATEWAY and self._unreadable)}
        if not wanted or time.monotonic() - self._saved_at < (_QUIET_S if GATEWAY in wanted else 0):
            return
        self._wanted -= wanted
        self._job = worker.submit(self._do, wanted)

    def _do(self, wanted: set[str]) -> None:
        for kind in (MIGRATE, DEPLOY, GATEWAY):
            if kind in wanted and not self._succeeds(kind) and kind == DEPLOY:
                return  # with this template the gateway would not start; its mending wants all of it again

    def _succeeds(self, kind: str) -> bool:
        """Whatever goes wrong is told, and watching goes on."""
        try:
            self._work[kind]()
        except StackError as error:
            _say(str(error))
        except Exception as error:
            _say(f"{kind} failed: {type(error).__name__}: {error}")
        else:
            return True
        return False


class ReloadLog:
    """The executor's lines on what was loaded, from where it ends now."""

    def __init__(self, instance: Instance) -> None:
        self._path = instance.log_dir / "reloads.jsonl"
        self._position = self._size()
        self._held: list[dict[str, Any]] = []
        self._came_at = 0.0

    def take(self, hold_s: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What was loaded again and what could not be: nothing yet while lines are coming, `hold_s` after the last."""
        if fresh := self._read():
            self._held += fresh
            self._came_at = time.monotonic()
            return [], []
        if time.monotonic() - self._came_at < hold_s:
            return [], []
        told, self._held = self._held, []
        loaded = [event for event in told if not event["error"] and not event["first"]]
        return loaded, [event for event in told if event["error"]]

    def _read(self) -> list[dict[str, Any]]:
        if self._size() < self._position:  # begun anew
            self._position = 0
        if self._size() == self._position:
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def _size(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0


def watched_files(project_dir: Path) -> Stats:
    """Every file that counts, with what changes when it is saved."""
    found: Stats = {}
    for name in (*_files_below(project_dir), *(f"{project_dir}/{name}" for name in _FILES)):
        with suppress(FileNotFoundError):
            stat = os.stat(name)  # noqa: PTH116 - four times a second: pathlib takes several times as long
            found[name] = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
    return found


def _files_below(project_dir: Path) -> Iterator[str]:
    for tree in _TREES:
        for folder, _, names in os.walk(project_dir / tree):
            yield from (f"{folder}/{name}" for name in names if name.endswith(_SUFFIXES))


def work_after(path: Path) -> set[str]:
    """What has to be done when this file, relative to the project, has changed."""
    name = path.as_posix()
    if name in _FILES:
        return {DEPLOY, GATEWAY}
    if name.startswith("layers/booking/migrations/") or "/sql/functions/" in name:
        return {MIGRATE}
    return {GATEWAY}


@contextmanager
def alone(instance: Instance) -> Iterator[None]:
    """One watch an instance: two would do everything twice. Raises StackError."""
    instance.run_dir.mkdir(parents=True, exist_ok=True)
    with (instance.run_dir / "watch.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"instance {instance.name} is being watched by another scripts/up --watch: end that one (Ctrl-C) first"
            ) from None
        yield


def _lines(*lines: str) -> str:
    return "".join(f"\n      {line.rstrip()}" for line in lines)


def _names(events: list[dict[str, Any]]) -> str:
    return ", ".join(sorted({event["function"].removeprefix(DEPLOYED_PREFIX) for event in events}))


def _say(text: str) -> None:
    progress.line(f"{datetime.now():%H:%M:%S}  {text}")
