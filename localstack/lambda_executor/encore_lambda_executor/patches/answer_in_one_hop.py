"""An answer whose body is complete goes back to the network thread once.

Twisted's WSGI server lets the worker thread wait until the network thread has written the body, and then tells it to
finish: two changes of thread, of which the second waits for the interpreter lock behind other requests. A body whose
length is told by Content-Length is complete with its first part, so headers, body and end go together. Streams go as
before, part by part.
"""

from typing import Any

REPLACES = ("rolo.serving.twisted:HeaderPreservingWSGIResponse",)


def apply() -> None:
    from rolo.serving import twisted

    class OneHopResponse(twisted.HeaderPreservingWSGIResponse):  # type: ignore[misc]
        _held: bytes | None = None

        def write(self, data: bytes) -> None:
            if self._held is None and not self.started and _content_length(self.headers) == len(data):
                self._held = data
                return
            if self._held is not None:  # more than was promised: as it comes
                held, self._held = self._held, None
                super().write(held)
            super().write(data)

        def _sendResponseHeaders(self) -> None:  # called in the network thread
            super()._sendResponseHeaders()
            if self._held is not None:
                self.request.write(self._held)

    twisted.HeaderPreservingWSGIResponse = OneHopResponse


def _content_length(headers: Any) -> int:
    for name, value in headers:
        if name.lower() == "content-length":
            return int(value)
    return -1
