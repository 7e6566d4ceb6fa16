"""What runs inside the function's processes: standard library only, one file, started as a script.

The *template* process imports the handler once, single-threaded, and then forks an *environment* whenever the pool
asks: what SnapStart does on AWS, and with SnapStart's rule: **open connections lazily, after the fork**, for a socket
opened while importing would be shared by all environments. Each environment owns one end of a socket pair (frames in,
frames out) and one memory file as stdout and stderr, so that what it printed can be read even if it was killed.

Frames on the socket pair: 4 bytes length, then the body.
  to the environment    4 bytes length of the header, JSON header {request_id, arn, deadline_ms, …}, the event's JSON
  from the environment  1 byte kind (0 answer, 1 error), 4 bytes peak memory in KiB, the answer's JSON
Messages on the control socket (SOCK_SEQPACKET keeps their bounds): b"fork" with two descriptors → pid; b"reap <pid>" →
wait status; the template's first message says how importing went.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.machinery
import json
import logging
import os
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

LENGTH = struct.Struct("<I")
ANSWER_HEAD = struct.Struct("<BI")
KIND_ANSWER, KIND_ERROR = 0, 1
FRAME_BYTES_MAX = 64 * 1024 * 1024
ANSWER_BYTES_MAX = 6 * 1024 * 1024 + 100 * 1024  # Lambda's own limit for a synchronous answer
CONTROL_MESSAGE_BYTES_MAX = 128 * 1024
PR_SET_PDEATHSIG = 1

Json = dict[str, Any]
Handler = Callable[[Any, "LambdaContext"], Any]


# ---- frames (shared with the pool) ----


def send_frame(connection: socket.socket, *parts: bytes) -> None:
    """Sends one frame made of `parts`. Raises OSError when the other side is gone."""
    connection.sendall(b"".join((LENGTH.pack(sum(map(len, parts))), *parts)))


def receive_frame(connection: socket.socket, while_waiting: Callable[[], None] | None = None) -> bytes | None:
    """One whole frame, or None when the other side is gone.

    `while_waiting` is called each time that the socket's timeout is over, and may raise; without it the BlockingIOError
    of the kernel's timeout is raised.
    """

    def receive(length: int) -> bytes:
        while True:
            try:
                return connection.recv(length)
            except BlockingIOError:
                if while_waiting is None:
                    raise
                while_waiting()

    # Most frames are small: one system call takes length and body together.
    buffer = receive(65536)
    while len(buffer) < LENGTH.size:
        more = receive(65536) if buffer else b""
        if not more:
            return None
        buffer += more
    (length,) = LENGTH.unpack_from(buffer)
    if length > FRAME_BYTES_MAX:
        raise OSError(f"frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}")
    missing = length + LENGTH.size - len(buffer)
    if not missing:
        return buffer[LENGTH.size :]
    parts = [buffer[LENGTH.size :]]
    while missing > 0:
        part = receive(min(missing, 1 << 20))
        if not part:
            return None
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def error_body(error_type: str, message: str, request_id: str = "", stack: list[str] | None = None) -> Json:
    """An error in the shape that Lambda answers with."""
    return {"errorMessage": message, "errorType": error_type, "requestId": request_id, "stackTrace": stack or []}


# ---- dying with the parent ----


def die_with(parent_pid: int) -> None:
    """Asks the kernel to kill this process when its parent ends, however it ends.

    The signal belongs to the parent *thread*: the pool starts templates from a thread that lives as long as LocalStack.
    It is cleared by fork, so each environment asks again.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before the call
        os._exit(1)


# ---- the handler's view ----


class LambdaContext:
    """The context object of an invocation, with the attributes that Lambda gives it."""

    identity = None

    def __init__(self, header: Json) -> None:
        self.aws_request_id: str = header["request_id"]
        self.invoked_function_arn: str = header["arn"]
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self.client_context = header.get("client_context")
        self.deadline_ms: int = header["deadline_ms"]

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation times out, never negative."""
        return max(self.deadline_ms - int(time.time() * 1000), 0)

    def log(self, message: object) -> None:
        """Writes to the invocation's log."""
        sys.stdout.write(str(message))


class _RequestIdFilter(logging.Filter):
    request_id = ""

    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = _RequestIdFilter.request_id
        return True


def _set_up_logging() -> None:
    """The root handler that Lambda's Python runtime installs, with its line format."""
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(_RequestIdFilter())
    logging.getLogger().addHandler(handler)


# ---- importing the handler ----


class InitError(Exception):
    """Importing the handler failed; `body` is the Lambda-shaped answer."""

    def __init__(self, body: Json) -> None:
        super().__init__(body["errorMessage"])
        self.body = body


def load_handler(name: str) -> Handler:
    """Imports `module.attribute`. Raises InitError with the error types of Lambda's Python runtime."""
    module_name, _, attribute = name.rpartition(".")
    if not module_name:
        raise InitError(
            error_body("Runtime.MalformedHandlerName", f"Bad handler '{name}': not enough values to unpack")
        )
    try:
        __import__(module_name.replace("/", "."))
        module = sys.modules[module_name.replace("/", ".")]
    except ImportError as error:
        message = f"Unable to import module '{module_name}': {error}"
        raise InitError(error_body("Runtime.ImportModuleError", message, stack=_stack(error))) from error
    except SyntaxError as error:
        message = f"Syntax error in module '{module_name}': {error}"
        # The frames end at the import: the line that is wrong comes with the error.
        where = "".join(traceback.format_exception_only(error)[:-1])
        raise InitError(error_body("Runtime.UserCodeSyntaxError", message, stack=[*_stack(error), where])) from error
    except Exception as error:
        raise InitError(error_body(type(error).__name__, str(error), stack=_stack(error))) from error
    if not hasattr(module, attribute):
        message = f"Handler '{attribute}' missing on module '{module_name}'"
        raise InitError(error_body("Runtime.HandlerNotFound", message))
    handler: Handler = getattr(module, attribute)
    return handler


class _UncachedLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source at each import: a cached module counts as current if its source has the same size and was
    saved in the same second."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def import_uncached(folders: list[str]) -> None:
    """From now on what lies in these folders is imported from its source, and nothing is cached beside it."""
    extensions = (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES)
    sources = (_UncachedLoader, importlib.machinery.SOURCE_SUFFIXES)
    make_finder = importlib.machinery.FileFinder.path_hook(extensions, sources)

    def hook(path: str) -> Any:
        if not any(path == folder or path.startswith(f"{folder}/") for folder in folders):
            raise ImportError(f"{path} is not watched")
        return make_finder(path)

    sys.path_hooks.insert(0, hook)


def _stack(error: BaseException) -> list[str]:
    """The frames of the function's own code: those of this file and of the import machinery say nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename != __file__ and not frame.filename.startswith("<frozen ")]
    return traceback.format_list(own)


def _log_error(body: Json) -> None:
    lines = [f"[ERROR] {body['errorType']}: {body['errorMessage']}"]
    if body["stackTrace"]:
        lines += ["Traceback (most recent call last):", *(part.rstrip("\n") for part in body["stackTrace"])]
    print("\n".join(lines), flush=True)


# ---- an environment ----


def _answer(handler: Handler, event_json: bytes, context: LambdaContext) -> tuple[int, bytes]:
    request_id = context.aws_request_id
    try:
        try:
            event = json.loads(event_json)
        except ValueError as error:
            raise _Refused("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from error
        result = handler(event, context)
        try:
            answer = json.dumps(result, ensure_ascii=False).encode("utf-8", "surrogatepass")
        except (TypeError, ValueError) as error:
            raise _Refused("Runtime.MarshalError", f"Unable to marshal response: {error}") from error
        if len(answer) > ANSWER_BYTES_MAX:
            message = f"Response payload size exceeded maximum allowed payload size ({ANSWER_BYTES_MAX} bytes)."
            raise _Refused("Function.ResponseSizeTooLarge", message)
        return KIND_ANSWER, answer
    except _Refused as error:
        body = error_body(error.error_type, str(error), request_id)
    except Exception as error:
        body = error_body(type(error).__name__, str(error), request_id, _stack(error))
    _log_error(body)
    return KIND_ERROR, json.dumps(body).encode()


class _Refused(Exception):
    """An event or an answer that is not JSON, or too long."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type


def serve(handler: Handler, connection: socket.socket) -> None:
    """The loop of one environment: an event in, an answer out, until the other side closes."""
    while (frame := receive_frame(connection)) is not None:
        (header_length,) = LENGTH.unpack_from(frame)
        event_start = LENGTH.size + header_length
        header = json.loads(frame[LENGTH.size : event_start])
        os.environ["AWS_LAMBDA_LOG_STREAM_NAME"] = header["log_stream_name"]
        os.environ["_X_AMZN_TRACE_ID"] = header["trace_id"]
        _RequestIdFilter.request_id = header["request_id"]
        kind, answer = _answer(handler, frame[event_start:], LambdaContext(header))
        sys.stdout.flush()
        sys.stderr.flush()
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        send_frame(connection, ANSWER_HEAD.pack(kind, peak_kib), answer)


def _become_environment(handler: Handler, template_pid: int, connection_fd: int, output_fd: int) -> NoReturn:
    status = 1
    # Held here to the very end: the pool takes a closed socket for an ended process, and kills what is left of it.
    connection = socket.socket(fileno=connection_fd)
    try:
        die_with(template_pid)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _redirect_output(output_fd)
        # os.urandom and `random` differ in each environment: CPython reseeds `random` after a fork.
        serve(handler, connection)
        status = 0
    except SystemExit as leaving:  # sys.exit() in a handler ends the environment, as on Lambda
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except OSError:
        pass  # the pool is gone
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status & 0xFF)


# ---- the template ----


def _redirect_output(descriptor: int) -> None:
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _import_handler(control: socket.socket, settings: Json) -> Handler:
    """Imports the handler and reports how it went. Ends the process if it failed."""
    started = time.perf_counter()
    try:
        handler = load_handler(settings["handler"])
    except InitError as error:
        _log_error(error.body)
        report: Json = {"error": error.body}
    else:
        report = {"error": None}
    sys.stdout.flush()
    sys.stderr.flush()
    report["init_ms"] = (time.perf_counter() - started) * 1000
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 (pathlib would be loaded for this alone)
    if threads > 1 and report["error"] is None:
        print(f"[WARN] {threads - 1} thread(s) were started while importing; they do not run in the environments")
        sys.stdout.flush()
    if report["error"] is not None:
        report["error"]["stackTrace"] = report["error"]["stackTrace"][-50:]
    control.send(json.dumps(report).encode()[:CONTROL_MESSAGE_BYTES_MAX])
    if report["error"] is not None:
        os._exit(1)
    return handler


def _run_template(control: socket.socket, handler: Handler) -> None:
    """Forks on request until the pool closes the control socket."""
    # What was imported never changes: keep the collector from touching, and so copying, the shared pages.
    gc.collect()
    gc.freeze()
    template_pid = os.getpid()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 64, 2)
        if not message:
            return
        if message == b"fork":
            pid = os.fork()
            if pid == 0:
                control.close()
                _become_environment(handler, template_pid, *descriptors)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # so that what the function starts can be ended with it
            for descriptor in descriptors:
                os.close(descriptor)
            control.send(str(pid).encode())
        else:
            try:
                _, status = os.waitpid(int(message.split()[1]), 0)
            except ChildProcessError:
                status = signal.SIGKILL
            control.send(str(int(status)).encode())


def main() -> None:
    """argv: control descriptor, output descriptor, parent's pid, JSON settings {handler, path, watched}."""
    die_with(int(sys.argv[3]))
    settings = json.loads(sys.argv[4])
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    _redirect_output(int(sys.argv[2]))
    # Lambda's order: the function, the layers, the standard library. Nothing of LocalStack's environment.
    sys.path[:0] = settings["path"]
    if settings["watched"]:
        import_uncached(settings["watched"])
    sys.argv[:] = ["bootstrap"]
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(settings["path"][0])
    _set_up_logging()
    _run_template(control, _import_handler(control, settings))


if __name__ == "__main__":
    main()
