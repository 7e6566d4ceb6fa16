"""Serves a gateway on two loopback ports: the public one, which `refuse` really closes, and the panel's own.

A port either accepts a connection or refuses it before a byte is read, so a panel on a refused port could not be
reached. The same API is therefore served on a second, free port too. Its address is `panel_url` in every answer of
/_faults, and stands in `<book>/<name>.panel` for who arrives later.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from payment_gateways.app import Gateway

HOST = "127.0.0.1"
_BACKLOG = 2048
"""Connections that wait to be accepted. Beyond that the kernel drops them, and they come back after a second."""

logger = logging.getLogger("payment_gateways")


class _Protocol(HttpToolsProtocol):
    """Hands each request a way to reset its own connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["reset_connection"] = self.reset

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None:  # linger 0: close() sends RST, not FIN
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    @property
    def is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete


class GatewayServer(uvicorn.Server):
    """uvicorn serves the panel port; the public port is opened and closed beside it with the same protocol."""

    def __init__(self, gateway: Gateway, port: int, panel_file: Path) -> None:
        super().__init__(
            uvicorn.Config(
                gateway.app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # What hangs on purpose must not hold up a stop.
                timeout_graceful_shutdown=1,
            )
        )
        self._gateway = gateway
        self._port = port
        self._panel_file = panel_file
        self._public: asyncio.Server | None = None
        gateway.set_public_listener = self.set_public_listener

    async def run_until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises OSError when the public port is taken."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._stop)
        with socket.create_server((HOST, 0)) as panel:
            self._gateway.panel_url = f"http://{HOST}:{panel.getsockname()[1]}"
            await self.set_public_listener(True)
            self._panel_file.write_text(self._gateway.panel_url + "\n", encoding="utf-8")
            try:
                logger.info(
                    "listening: a simulated payment gateway, not the real firm, no money moves",
                    extra={"url": f"http://{HOST}:{self._port}", "panel_url": self._gateway.panel_url},
                )
                await self.serve(sockets=[panel])
            finally:
                await self.set_public_listener(False)
                self._panel_file.unlink(missing_ok=True)

    def _stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled in run_until_stopped; uvicorn's way raises them again and so skips our clean-up."""
        yield

    async def set_public_listener(self, is_open: bool) -> None:
        if is_open and self._public is None:
            loop = asyncio.get_running_loop()
            self._public = await loop.create_server(self._protocol, HOST, self._port, backlog=_BACKLOG)
        elif not is_open and self._public is not None:
            self._public.close()
            self._public = None
            self._reset_idle_connections()

    def _protocol(self) -> _Protocol:
        app_state: dict[str, Any] = {}
        return _Protocol(config=self.config, server_state=self.server_state, app_state=app_state)

    def _reset_idle_connections(self) -> None:
        """A kept-alive connection would get past a closed port."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, _Protocol) and connection.is_idle and self._is_public(connection):
                connection.reset()

    def _is_public(self, connection: _Protocol) -> bool:
        return connection.server is not None and connection.server[1] == self._port
