"""The processes of one function version: one template that has imported, at most eight environments forked from it.

Knows nothing of LocalStack. A call takes an idle environment, or has one forked, or waits its turn; an environment that
timed out or crashed is replaced at the next call. The environment's socket, memory file and pid belong to exactly one
call at a time, so nothing here is locked while a handler runs.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import runtime
from .runtime import ANSWER_HEAD, KIND_ANSWER, LENGTH, error_body, receive_frame, send_frame

ENVIRONMENTS_MAX = 8
INIT_TIMEOUT_S = 10.0  # Lambda's own limit for the init phase
WAIT_GRACE_S = 5.0
IDLE_S_MAX = 600.0
REPLY_TIMEOUT_S = 10.0  # a fork or a reap takes milliseconds
LOG_WRITTEN_EACH_S = 1.0  # while a call works; most are over before
LOG_BYTES_MAX = 1024 * 1024
LOG_FILE_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class FunctionSpec:
    """What one version of a function needs to run."""

    name: str
    version: str
    handler: str
    path: tuple[str, ...]  # function folder first, then the layers' python folders
    environment: dict[str, str]
    timeout_s: float
    memory_mb: int
    log_file: Path | None = None
    environments_max: int = ENVIRONMENTS_MAX
    init_timeout_s: float = INIT_TIMEOUT_S
    watched: tuple[str, ...] = ()  # folders whose files people change while the function runs: see hot_reload
    python: str = field(default_factory=lambda: getattr(sys, "_base_executable", sys.executable))


@dataclass(frozen=True)
class Call:
    """One invocation."""

    request_id: str
    arn: str
    payload: bytes
    log_stream_name: str = ""
    trace_id: str = ""
    client_context: Any = None


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended: `payload` is the answer's JSON or a Lambda-shaped error body."""

    payload: bytes
    is_error: bool
    logs: str


class NoEnvironmentFree(Exception):
    """All environments stayed busy for as long as a call may wait."""


class PoolClosed(Exception):
    """The function version was replaced or deleted."""


class InitFailed(Exception):
    """The handler could not be imported; `body` is the Lambda-shaped error, `output` what was printed."""

    def __init__(self, body: dict[str, Any], output: bytes, init_ms: float) -> None:
        super().__init__(body["errorMessage"])
        self.body, self.output, self.init_ms = body, output, init_ms

    @property
    def note(self) -> str:
        """What the function's log says of it."""
        report = f"INIT_REPORT Init Duration: {self.init_ms:.2f} ms\tPhase: init\tStatus: error\t"
        return f"{self.output.decode('utf-8', 'replace')}{report}Error Type: {self.body['errorType']}\n"


class _Spawner:
    """A thread that lives as long as the process and starts every template.

    The kernel's parent-death signal fires when the *thread* that started the child ends: a request thread of
    LocalStack's pool would take its templates with it.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._started = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, job: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        with self._started:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="encore-spawner", daemon=True)
                self._thread.start()
        future: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((job, future))
        return future.result()

    def _loop(self) -> None:
        while True:
            job, future = self._jobs.get()
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)


_spawner = _Spawner()


class _Output:
    """A memory file as stdout and stderr of a process; what a killed process wrote can still be read."""

    def __init__(self, name: str) -> None:
        self.descriptor = os.memfd_create(f"{name}-output", os.MFD_CLOEXEC)
        # Appending, so that writes go on at the start again after take() has emptied the file.
        append = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        os.close(self.descriptor)
        self.descriptor = append

    def read(self, start: int) -> bytes:
        """What was printed after the first `start` bytes, and stays to be taken."""
        end = min(os.fstat(self.descriptor).st_size, LOG_BYTES_MAX)
        return os.pread(self.descriptor, max(end - start, 0), start)

    def take(self) -> bytes:
        size = os.fstat(self.descriptor).st_size
        if not size:
            return b""
        text = os.pread(self.descriptor, min(size, LOG_BYTES_MAX), 0)
        os.ftruncate(self.descriptor, 0)
        return text if size <= LOG_BYTES_MAX else text + b"\n[%d bytes of output left out]\n" % (size - LOG_BYTES_MAX)

    def close(self) -> None:
        os.close(self.descriptor)


class _Template:
    """The process that has imported the handler. Raises InitFailed from its constructor."""

    def __init__(self, spec: FunctionSpec) -> None:
        self._lock = threading.Lock()
        self._control, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output = _Output(spec.name)
        command = [
            *(spec.python, "-I", "-S", runtime.__file__, str(remote.fileno()), str(output.descriptor)),
            *(str(os.getpid()), json.dumps({"handler": spec.handler, "path": spec.path, "watched": spec.watched})),
        ]
        try:
            self._process = _spawner.run(
                lambda: subprocess.Popen(
                    command,
                    env=spec.environment,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=output.descriptor,
                    stderr=output.descriptor,
                    pass_fds=(remote.fileno(), output.descriptor),
                    start_new_session=True,  # Ctrl-C in LocalStack's terminal is LocalStack's
                )
            )
            remote.close()
            self.init_ms = self._await_import(spec, output)
            self.init_output = output.take()
        except BaseException:
            self.close()
            raise
        finally:
            output.close()
        self._control.settimeout(REPLY_TIMEOUT_S)

    def _await_import(self, spec: FunctionSpec, output: _Output) -> float:
        started = time.monotonic()
        self._control.settimeout(spec.init_timeout_s)
        try:
            message = self._control.recv(runtime.CONTROL_MESSAGE_BYTES_MAX)
        except TimeoutError:
            text = f"Error: Task timed out after {spec.init_timeout_s:.2f} seconds"
            raise InitFailed(error_body("Sandbox.Timedout", text), output.take(), spec.init_timeout_s * 1000) from None
        if not message:
            how = describe_exit(self._process.wait(REPLY_TIMEOUT_S))
            body = error_body("Runtime.ExitError", f"Error: Runtime exited with error: {how}")
            raise InitFailed(body, output.take(), (time.monotonic() - started) * 1000)
        report = json.loads(message)
        if report["error"] is not None:
            raise InitFailed(report["error"], output.take(), report["init_ms"])
        return float(report["init_ms"])

    def fork(self, name: str) -> _Environment:
        """A fresh environment. Raises OSError when the template is gone."""
        ours, theirs = socket.socketpair()
        output = _Output(name)
        try:
            with self._lock:
                socket.send_fds(self._control, [b"fork"], [theirs.fileno(), output.descriptor])
                pid = int(self._reply())
        except BaseException:
            ours.close()
            output.close()
            raise
        finally:
            theirs.close()
        return _Environment(self, pid, ours, output)

    def reap(self, pid: int) -> str:
        """How an ended environment ended, in Lambda's words."""
        try:
            with self._lock:
                self._control.send(b"reap %d" % pid)
                return describe_exit(os.waitstatus_to_exitcode(int(self._reply())))
        except (OSError, ValueError):
            return "signal: killed"  # the template went first and took it along

    def _reply(self) -> bytes:
        reply = self._control.recv(64)
        if not reply:
            raise ConnectionResetError("the template process is gone")
        return reply

    def close(self) -> None:
        """Ends the template, and with it every environment forked from it."""
        self._control.close()
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait(REPLY_TIMEOUT_S)


@dataclass
class _Environment:
    template: _Template
    pid: int
    connection: socket.socket
    output: _Output
    idle_since: float = 0.0

    def is_alive(self) -> bool:
        """An idle environment has nothing to say: a readable socket means that it ended."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        return not poll.poll(0)

    def kill(self) -> None:
        # Its pid stays taken until the template reaps it, so this never hits a stranger.
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except OSError:
                continue

    def reap(self) -> str:
        return self.template.reap(self.pid)

    def close(self) -> None:
        self.connection.close()
        self.output.close()

    def bury(self) -> None:
        self.reap()
        self.close()


def describe_exit(code: int) -> str:
    """`exit status 1`, or `signal: killed` for a negative code (-signal)."""
    if code >= 0:
        return f"exit status {code}"
    words = {signal.SIGKILL: "killed", signal.SIGSEGV: "segmentation fault", signal.SIGABRT: "aborted"}
    return f"signal: {words.get(signal.Signals(-code), signal.Signals(-code).name.lower())}"


def _timeval(duration_s: float) -> bytes:
    return struct.pack("ll", int(duration_s), int(duration_s % 1 * 1e6))


class FunctionPool:
    """Runs calls of one function version. Thread-safe."""

    def __init__(self, spec: FunctionSpec) -> None:
        self.spec = spec
        self._lock = threading.Lock()
        self._idle: list[_Environment] = []  # the last used first: the rest may grow old and end
        self._waiting: deque[queue.SimpleQueue[_Environment | None]] = deque()
        self._count = 0
        self._closed = False
        self.was_cut_off = False
        self._template: _Template | None = None
        self._template_lock = threading.Lock()
        self._init_failures = 0
        self._init_failure: InitFailed | None = None
        self._log = _LogFile(spec.log_file)

    @property
    def calls_under_way(self) -> int:
        """How many calls have an environment, or are getting one."""
        with self._lock:
            return self._count - len(self._idle)

    # -- one call --

    def invoke(self, call: Call) -> Outcome:
        """Runs one call to its end, whatever that is.

        Raises NoEnvironmentFree after the function's timeout and a grace, PoolClosed when the version is gone.
        """
        try:
            environment, init_note = self._acquire()
        except InitFailed as failed:
            return self._init_outcome(call, failed)
        outcome, survives = self._run(environment, call, init_note)
        if survives:
            self._release(environment)
        else:
            self._discard(environment)
        return outcome

    def _run(self, environment: _Environment, call: Call, init_note: str) -> tuple[Outcome, bool]:
        started = time.monotonic()
        timeout_s = self.spec.timeout_s
        head = f"{init_note}START RequestId: {call.request_id} Version: {self.spec.version}\n"
        log = _CallLog(self._log, call.request_id, head, environment.output)
        header = json.dumps(
            {
                "request_id": call.request_id,
                "arn": call.arn,
                "deadline_ms": int((time.time() + timeout_s) * 1000),
                "log_stream_name": call.log_stream_name,
                "trace_id": call.trace_id,
                "client_context": call.client_context,
            }
        ).encode()
        peak_kib = 0
        error: dict[str, Any] | None = None
        frame: bytes | None = None
        last_words = ""
        try:
            frame = self._exchange(environment.connection, header, call.payload, started + timeout_s, log.write_on)
        except TimeoutError:
            environment.kill()
            environment.reap()
            text = f"Task timed out after {timeout_s:.2f} seconds"
            error = error_body("Sandbox.Timedout", f"RequestId: {call.request_id} Error: {text}")
            last_words = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z {call.request_id} {text}\n"
        except OSError:
            frame = None
        if frame is None and error is None:
            environment.kill()
            how = "its code was replaced" if self.was_cut_off else environment.reap()
            text = f"RequestId: {call.request_id} Error: Runtime exited with error: {how}"
            error = error_body("Runtime.ExitError", text)
            last_words = f"{text}\nRuntime.ExitError\n"
        duration_ms = (time.monotonic() - started) * 1000
        if frame is not None:
            kind, peak_kib = ANSWER_HEAD.unpack_from(frame)
            payload, is_error = frame[ANSWER_HEAD.size :], kind != KIND_ANSWER
        else:
            body = {key: value for key, value in (error or {}).items() if key in ("errorType", "errorMessage")}
            payload, is_error = json.dumps(body).encode(), True
        logs = log.end(last_words + self._report(call, duration_ms, peak_kib))
        return Outcome(payload, is_error, logs), frame is not None

    @staticmethod
    def _exchange(
        connection: socket.socket, header: bytes, payload: bytes, deadline: float, each_second: Callable[[], None]
    ) -> bytes | None:
        # The kernel keeps the time: a Python socket with a timeout makes three system calls of one, and each hands the
        # interpreter lock to another request.
        def set_timeout(option: int, most_s: float = float("inf")) -> None:
            remaining_s = max(min(deadline - time.monotonic(), most_s), 0.001)
            connection.setsockopt(socket.SOL_SOCKET, option, _timeval(remaining_s))

        def while_waiting() -> None:
            if time.monotonic() >= deadline:
                raise TimeoutError
            each_second()
            set_timeout(socket.SO_RCVTIMEO, LOG_WRITTEN_EACH_S)

        set_timeout(socket.SO_SNDTIMEO)
        set_timeout(socket.SO_RCVTIMEO, LOG_WRITTEN_EACH_S)
        try:
            send_frame(connection, LENGTH.pack(len(header)), header, payload)
        except BlockingIOError:
            raise TimeoutError from None
        return receive_frame(connection, while_waiting)

    def _init_outcome(self, call: Call, failed: InitFailed) -> Outcome:
        body = {**failed.body, "requestId": call.request_id}
        head = f"{failed.note}START RequestId: {call.request_id} Version: {self.spec.version}\n"
        logs = head + self._report(call, failed.init_ms, 0)
        self._log.write(logs)
        return Outcome(json.dumps(body).encode(), True, logs)

    def _report(self, call: Call, duration_ms: float, peak_kib: int) -> str:
        return (
            f"END RequestId: {call.request_id}\n"
            f"REPORT RequestId: {call.request_id}\tDuration: {duration_ms:.2f} ms\t"
            f"Billed Duration: {int(duration_ms) + 1} ms\tMemory Size: {self.spec.memory_mb} MB\t"
            f"Max Memory Used: {-(-peak_kib // 1024)} MB\n"
        )

    # -- environments --

    def _acquire(self) -> tuple[_Environment, str]:
        """An environment for one call, and what the log says before START if it is the first of a template."""
        deadline = time.monotonic() + self.spec.timeout_s + WAIT_GRACE_S
        with self._lock:
            if self._closed:
                raise PoolClosed(self.spec.name)
            dead = []
            found = None
            while self._idle and found is None:
                candidate = self._idle.pop()
                if candidate.is_alive():
                    found = candidate
                else:
                    dead.append(candidate)
                    self._count -= 1
            if found is None and self._count < self.spec.environments_max:
                self._count += 1
                turn = None
            elif found is None:
                turn = queue.SimpleQueue[_Environment | None]()
                self._waiting.append(turn)
        for environment in dead:
            environment.bury()
        if found is not None:
            return found, ""
        if turn is not None and (handed := self._wait(turn, deadline)) is not None:
            return handed, ""
        return self._start_environment()

    def _wait(self, turn: queue.SimpleQueue[_Environment | None], deadline: float) -> _Environment | None:
        """The environment handed over by another call, or None: a place is free, start one."""
        try:
            return turn.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            pass
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                raise NoEnvironmentFree(self.spec.name)
        return turn.get()  # handed over in this very moment

    def _start_environment(self) -> tuple[_Environment, str]:
        try:
            if self._closed:
                raise PoolClosed(self.spec.name)
            template, note = self._ready_template()
            try:
                return template.fork(self.spec.name), note
            except OSError:  # the template was killed from outside: once more with a new one
                if self.was_cut_off:
                    raise PoolClosed(self.spec.name) from None
                self._drop_template(template)
                template, note = self._ready_template()
                return template.fork(self.spec.name), note
        except BaseException:
            self._give_up_place()
            raise

    def _give_up_place(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(None)  # the place goes on to the next in line
            else:
                self._count -= 1
            last_left = self._closed and self._count == 0
        if last_left:
            self._end()

    def _release(self, environment: _Environment) -> None:
        now = time.monotonic()
        environment.idle_since = now
        old: list[_Environment] = []
        with self._lock:
            if self._waiting and not self._closed:
                self._waiting.popleft().put(environment)
                return
            self._idle.append(environment)
            while self._idle and (self._closed or now - self._idle[0].idle_since > IDLE_S_MAX):
                old.append(self._idle.pop(0))
                self._count -= 1
            last_left = self._closed and self._count == 0
        for each in old:
            each.kill()
            each.bury()
        if last_left:
            self._end()

    def _discard(self, environment: _Environment) -> None:
        environment.close()
        self._give_up_place()

    # -- the template --

    def _ready_template(self) -> tuple[_Template, str]:
        """The template, started if there is none. Callers that waited for a failing start share its failure."""
        failures_seen = self._init_failures
        with self._template_lock:
            if self._template is not None:
                return self._template, ""
            if self._init_failures != failures_seen and self._init_failure is not None:
                raise self._init_failure
            try:
                self._template = template = _Template(self.spec)
            except InitFailed as failed:
                self._init_failures += 1
                self._init_failure = failed
                raise
            output = template.init_output.decode("utf-8", "replace")
            note = f"INIT_START Runtime Version: python:3.13\n{output}"
            return template, f"{note}INIT_REPORT Init Duration: {template.init_ms:.2f} ms\n"

    def _drop_template(self, template: _Template) -> None:
        with self._template_lock:
            if self._template is template:
                self._template = None
        template.close()

    def warm(self, *, for_call: bool) -> None:
        """Imports the handler now instead of at the first call; the log says how it went. Raises InitFailed.

        `for_call`: a call follows at once, which tries again where this fails, and has the log say so.
        """
        try:
            _, note = self._ready_template()
        except InitFailed as failed:
            if not for_call:
                self._log.write(failed.note)
            raise
        self._log.write(note)

    def close(self) -> None:
        """No new calls; idle environments end now, busy ones after their call (at most the function's timeout)."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            idle, self._idle = self._idle, []
            self._count -= len(idle)
            waiting, self._waiting = self._waiting, deque()
            # Those in line each take a place for a moment; _start_environment then tells them that the pool is closed.
            self._count += len(waiting)
            last_left = self._count == 0
        for turn in waiting:
            turn.put(None)
        for environment in idle:
            environment.kill()
            environment.bury()
        if last_left:
            self._end()

    def cut_off(self) -> None:
        """As close, but busy environments end now too: their calls are answered as after a crash."""
        self.was_cut_off = True
        self.close()
        with self._template_lock:
            template = self._template
        if template is not None:
            template.close()  # and with it every environment forked from it

    def _end(self) -> None:
        with self._template_lock:
            template, self._template = self._template, None
        if template is not None:
            template.close()
        self._log.close()


class _LogFile:
    """The function's log as a plain file, for people: opened at the first line, begun anew when it is full."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._descriptor = -1
        self._bytes = 0

    def write(self, text: str) -> None:
        if self._path is None:
            return
        content = text.encode()
        with self._lock:
            if self._descriptor < 0:
                self._open(self._path)
            elif self._bytes + len(content) > LOG_FILE_BYTES_MAX:
                self._path.replace(self._path.with_suffix(".log.1"))
                os.close(self._descriptor)
                self._open(self._path)
            os.write(self._descriptor, content)
            self._bytes += len(content)

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._bytes = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1


@dataclass
class _CallLog:
    """The log of one call. Most are written at its end, as Lambda has them; what a call prints that works for longer is
    written on each second, each time with a line that says RUNNING below it: other calls write in between.
    """

    file: _LogFile
    request_id: str
    head: str
    output: _Output
    bytes_written: int = 0

    def write_on(self) -> None:
        """Write the whole lines that have come since the last time."""
        printed = self.output.read(self.bytes_written)
        lines = printed[: printed.rfind(b"\n") + 1]
        if lines:
            head = "" if self.bytes_written else self.head
            self.file.write(f"{head}{lines.decode('utf-8', 'replace')}RUNNING RequestId: {self.request_id}\n")
            self.bytes_written += len(lines)

    def end(self, report: str) -> str:
        """Write what is left, and return the whole log of the call."""
        printed = self.output.take()
        if printed and not printed.endswith(b"\n"):
            printed += b"\n"
        logs = self.head + printed.decode("utf-8", "replace") + report
        rest = printed[self.bytes_written :].decode("utf-8", "replace") + report
        self.file.write(rest if self.bytes_written else logs)
        return logs
