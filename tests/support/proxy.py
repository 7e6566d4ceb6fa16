"""A wire between the functions and a server that a test can cut at the worst moment."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

_PIECE_BYTES = 65_536

Rule = Callable[[bytes], bool]
"""Sees a piece of an answer that has arrived here; whether to pass it on (else the connection is cut, both ways)."""


def pass_on(_: bytes) -> bool:
    """The rule of a wire that works."""
    return True


class Proxy:
    """Passes bytes between whoever connects and the server on ``port``; ``rule`` may be changed at any time."""

    def __init__(self, opened: ExitStack, port: int) -> None:
        self.rule: Rule = pass_on
        self._server_port = port
        self._listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
        opened.callback(self._close)
        self._wires: list[socket.socket] = []
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._wires += [client, server]
            self._start(self._pass, client, server, pass_on)
            self._start(self._pass, server, client, self._obey)

    def _obey(self, piece: bytes) -> bool:
        return self.rule(piece)

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, rule: Rule) -> None:
        with suppress(OSError):
            while (piece := source.recv(_PIECE_BYTES)) and rule(piece):
                target.sendall(piece)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for end in self._wires:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @staticmethod
    def _start(work: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()
