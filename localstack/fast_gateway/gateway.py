"""The WSGI application: route, event, handler, answer. Nothing that a function does may end a worker."""

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from encore_stack.deployment.template import Function, Template
from fast_gateway import proxy
from fast_gateway.functions import Context, Handler, load_handler
from fast_gateway.routing import Router

logger = logging.getLogger("fast_gateway")

type StartResponse = Callable[[str, proxy.HeaderList], Any]

_JSON = ("Content-Type", "application/json")
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


class Target:
    """One function: its handler, or the error that its import ended with (every call answers 502 then)."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.handler: Handler | None = None
        try:
            attribute = function.handler.rpartition(".")[2]
            self.handler = load_handler(function.name, function.handler_file, attribute, function.function_name)
        except BaseException:  # a function that calls sys.exit while it is imported harms itself only
            logger.exception("function cannot be loaded, its routes answer 502", extra={"function": function.name})

    def call(self, event: dict[str, Any]) -> Any:
        if self.handler is None:
            raise RuntimeError(f"{self.function.name} could not be loaded")
        request_id = event["requestContext"]["requestId"]
        function = self.function
        return self.handler(event, Context(function.function_name, function.timeout_s, function.memory_mb, request_id))


class Gateway:
    """Serves the routes of `template`; all functions are imported here, before the first request."""

    def __init__(self, template: Template) -> None:
        with_routes = [function for function in template.functions if function.routes]
        self.targets = {function.name: Target(function) for function in with_routes}
        self._router = Router((r.method, r.path, self.targets[r.function]) for r in template.routes)

    def __call__(self, environ: proxy.Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            status, headers, body = self._answer(environ)
        except proxy.BodyTooLarge:
            status, headers, body = _message(413, "Request Too Long")
        except BaseException:  # SystemExit too: a worker serves many people
            logger.exception("request failed", extra={"path": environ.get("PATH_INFO")})
            status, headers, body = _message(502, "Internal server error")
        if status >= 200 and status not in (204, 304):
            headers.append(("Content-Length", str(len(body))))
        else:
            body = b""
        start_response(_STATUS_LINES.get(status) or f"{status} Unknown", headers)
        return [body]

    def _answer(self, environ: proxy.Environ) -> tuple[int, proxy.HeaderList, bytes]:
        path = proxy.path_of(environ)
        found = self._router.find(environ["REQUEST_METHOD"], path)
        if found is None:
            if path == "/healthz":
                return self._health()
            return _message(403, "Missing Authentication Token")  # API Gateway's words for "no such resource"
        event = proxy.event_of(environ, path, found.resource_path, found.path_parameters, proxy.read_body(environ))
        status, headers, body = proxy.answer_of(found.target.call(event))
        headers.append(("x-amzn-RequestId", event["requestContext"]["requestId"]))
        return status, headers, body

    def _health(self) -> tuple[int, proxy.HeaderList, bytes]:
        broken = [name for name, target in self.targets.items() if target.handler is None]
        if broken:
            return _message(200, f"ok, but these cannot be loaded and answer 502: {', '.join(broken)}")
        return _message(200, "ok")


def _message(status: int, text: str) -> tuple[int, proxy.HeaderList, bytes]:
    return status, [_JSON], b'{"message":"%s"}' % text.encode()
