"""What the supervisor, `scripts/up` and `scripts/status` ask of a part."""

import http.client
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path

from encore_stack.instance import Instance
from encore_stack.ports import HOST

PROBE_TIMEOUT_S = 2.0


class PartError(Exception):
    """A part cannot be prepared or started; the message says what to do about it."""


class Unhealthy(Exception):
    """The part does not answer as it should."""


class Part(ABC):
    """One server or worker of the stack. Holds no state: everything depends on the instance it is asked about."""

    name: str
    needs: tuple[str, ...] = ()
    """Parts that are started along with this one, and before it."""
    peers: tuple[str, ...] = ()
    """Parts that are started along with this one, in no order: it is not healthy without them."""
    stop_signal = "TERM"
    stop_wait_s = 15
    start_timeout_s = 60.0

    def waits_for(self, instance: Instance) -> tuple[str, ...]:
        """Parts that must be healthy before this one is prepared."""
        return self.needs

    def absent(self, instance: Instance) -> str | None:
        """Why the instance does without this part, or None."""
        return None

    def prepare(self, instance: Instance) -> None:  # noqa: B027 - most parts have nothing to prepare
        """Everything before the process starts. Raises PartError."""

    def take_role(self, instance: Instance, running: Collection[str]) -> None:  # noqa: B027 - most parts have no peers
        """Settle what the part is among its peers, after preparing it. `running`: the parts that ran before this start.

        Raises PartError.
        """

    def restarts_when_it_dies(self, instance: Instance) -> bool:
        """Whether the supervisor starts it again by itself."""
        return True

    @abstractmethod
    def command(self, instance: Instance) -> list[str]:
        """The process that the supervisor runs, in the foreground."""

    def environment(self, instance: Instance) -> Mapping[str, str]:
        """Environment variables besides those that all parts get."""
        return {}

    @abstractmethod
    def probe(self, instance: Instance) -> None:
        """Returns when the part does its work. Raises Unhealthy with the reason otherwise."""

    def when_healthy(self, instance: Instance) -> None:  # noqa: B027 - nor anything left to do
        """What is left to do once it answers. Safe to repeat. Raises PartError."""

    def role(self, instance: Instance) -> str | None:
        """What a healthy part is among its peers, for a person to see."""
        return None

    def port(self, instance: Instance) -> int | None:
        return instance.ports.get(self.name)

    def advice(self, instance: Instance) -> str:
        """What a person may do when it does not start."""
        return "scripts/down and scripts/up begin anew; scripts/down --wipe forgets the data too"


def python(instance: Instance) -> str:
    return str(instance.tools_dir / "venv" / "bin" / "python")


def probe_tcp(port: int) -> None:
    """Raises Unhealthy when nothing listens."""
    try:
        socket.create_connection((HOST, port), timeout=PROBE_TIMEOUT_S).close()
    except OSError as error:
        raise Unhealthy(f"port {port}: {error.strerror or error}") from error


def probe_http(port: int, path: str) -> bytes:
    """The body of a GET. Raises Unhealthy when the answer is a server error or none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unhealthy(f"GET {path}: {error}") from error
    finally:
        connection.close()
    if response.status >= 500:
        raise Unhealthy(f"GET {path}: {response.status}")
    return body


def find_program(*candidates: str) -> str:
    """The first that exists: absolute paths as they are, names looked up in PATH. Raises PartError."""
    for candidate in candidates:
        folders = [""] if candidate.startswith("/") else [*os.get_exec_path(), "/usr/local/sbin", "/usr/sbin"]
        for folder in folders:
            path = Path(folder, candidate)
            # In this order: asking what lies in a folder that is closed to us raises.
            if os.access(path, os.X_OK) and path.is_file():
                return str(path)
    raise PartError(f"{candidates[0]} is not installed: scripts/up installs it")
