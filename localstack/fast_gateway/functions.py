"""Loads the functions' handlers by path, and makes their Chalice apps fit for threads."""

import importlib.util
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chalice.app import Chalice

type Handler = Callable[[dict[str, Any], Any], Any]

_PER_FUNCTION = ("POWERTOOLS_SERVICE_NAME", "AWS_LAMBDA_FUNCTION_NAME")


class Context:
    """What Lambda hands to a handler beside the event, as far as it makes sense here."""

    function_version = "$LATEST"
    log_group_name = "fast_gateway"
    log_stream_name = "fast_gateway"
    identity = None
    client_context = None

    def __init__(self, function_name: str, timeout_s: int, memory_mb: int, request_id: str) -> None:
        self.function_name = function_name
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:000000000000:function:{function_name}"
        self.memory_limit_in_mb = str(memory_mb)
        self.aws_request_id = request_id
        self._deadline = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function's time limit, never below 0. The limit itself is not enforced here."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def load_handler(name: str, file: Path, attribute: str, function_name: str) -> Handler:
    """Import `file` under a module name of its own (all are called app.py) and return its handler.

    Raises whatever the import raises, AttributeError when there is no such handler.
    """
    spec = importlib.util.spec_from_file_location(f"fast_gateway_function_{name}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    with _environment_of(name, function_name):
        spec.loader.exec_module(module)
    handler = getattr(module, attribute)
    if isinstance(handler, Chalice):
        make_thread_safe(handler)
    return handler  # type: ignore[no-any-return]


def make_thread_safe(app: Chalice) -> None:
    """Give each thread its own `current_request` and `lambda_context` of `app`.

    Chalice keeps both as plain attributes and sets them on each call: in two threads, one request would be answered
    with the other's path and person. All else that a call touches is made anew for each call.
    """
    vars(app)["_of_thread"] = threading.local()
    app.__class__ = type(f"ThreadSafe{type(app).__name__}", (_PerThread, type(app)), {})


class _PerThread:
    """Before Chalice's own class in the MRO: its assignments to these names land here."""

    _of_thread: threading.local

    @property
    def current_request(self) -> Any:
        return getattr(self._of_thread, "current_request", None)

    @current_request.setter
    def current_request(self, request: Any) -> None:
        self._of_thread.current_request = request

    @property
    def lambda_context(self) -> Any:
        return getattr(self._of_thread, "lambda_context", None)

    @lambda_context.setter
    def lambda_context(self, context: Any) -> None:
        self._of_thread.lambda_context = context


@contextmanager
def _environment_of(name: str, function_name: str) -> Iterator[None]:
    """The variables that differ from function to function, as Lambda has them while the function is imported."""
    before = {variable: os.environ.get(variable) for variable in _PER_FUNCTION}
    os.environ.update(dict(zip(_PER_FUNCTION, (name, function_name), strict=True)))
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
