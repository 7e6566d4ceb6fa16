"""supervisord, one for each instance: its configuration, its start and end, and what to ask of it."""

import os
import subprocess
import time
import xmlrpc.client
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from encore_stack.instance import MARKER, PART_MARKER, Instance, write_atomically
from encore_stack.parts import Part
from encore_stack.parts.base import python

RUNNING, STARTING, STOPPED, FATAL = "RUNNING", "STARTING", "STOPPED", "FATAL"
_START_S = 10.0
_LOG_BYTES_MAX = 20 << 20


class SupervisorError(Exception):
    """supervisord did not start or does not answer."""


@dataclass(frozen=True)
class Process:
    """What supervisord knows of a part. `pid` is 0 when it does not run."""

    state: str
    pid: int
    description: str


class Supervisor:
    """Talks to the instance's supervisord. Each call is a connection of its own, so threads may share the object."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def is_running(self) -> bool:
        try:
            return bool(self._rpc().getState())
        except (OSError, xmlrpc.client.Error):
            return False

    def start(self) -> None:
        """Start supervisord with the present configuration, without any part. Raises SupervisorError."""
        instance = self._instance
        socket_dir = instance.supervisor_socket.parent
        socket_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = [python(instance), "-m", "supervisor.supervisord", "-c", str(_config_file(instance))]
        done = subprocess.run(
            command,
            check=False,
            env=_common_environment(instance),
            cwd=instance.dir,
            capture_output=True,
            text=True,
        )
        deadline = time.monotonic() + _START_S
        while not self.is_running():
            if done.returncode or time.monotonic() > deadline:
                raise SupervisorError(f"supervisord did not start:\n{done.stdout}{done.stderr}".rstrip())
            time.sleep(0.05)

    def configure(self, parts: Iterable[Part]) -> None:
        """Write the configuration; where supervisord runs already, let it take over what changed."""
        write_atomically(_config_file(self._instance), _config(self._instance, parts), mode=0o600)
        if not self.is_running():
            return
        rpc = self._rpc()
        added, changed, removed = rpc.reloadConfig()[0]
        for name in [*changed, *removed]:
            with suppress(xmlrpc.client.Fault):
                rpc.stopProcessGroup(name)
            rpc.removeProcessGroup(name)
        for name in [*added, *changed]:
            rpc.addProcessGroup(name)

    def processes(self) -> dict[str, Process]:
        """Every configured part; empty when supervisord is not running."""
        try:
            rows = self._rpc().getAllProcessInfo()
        except (OSError, xmlrpc.client.Error):
            return {}
        return {row["name"]: Process(row["statename"], row["pid"], row["description"]) for row in rows}

    def start_part(self, name: str) -> None:
        """Returns at once; nothing happens if it runs already."""
        self._call("startProcess", name, Faults.ALREADY_STARTED)

    def stop_part(self, name: str) -> None:
        """Returns when it has ended; nothing happens if it does not run."""
        self._call("stopProcess", name, Faults.NOT_RUNNING)

    def shut_down(self) -> None:
        """End supervisord and everything it runs. Returns when it is gone."""
        pid = self.pid()
        with suppress(OSError, xmlrpc.client.Error):
            self._rpc().shutdown()
        while pid and Path(f"/proc/{pid}").exists():
            time.sleep(0.05)

    def pid(self) -> int | None:
        try:
            return int(self._rpc().getPID())
        except (OSError, xmlrpc.client.Error):
            return None

    def _call(self, method: str, name: str, harmless_fault: int) -> None:
        wait = method == "stopProcess"
        try:
            getattr(self._rpc(), method)(name, wait)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in (harmless_fault, Faults.SPAWN_ERROR):
                raise SupervisorError(f"{method} {name}: {fault.faultString}") from fault
        except OSError as error:
            raise SupervisorError(f"supervisord does not answer: {error}") from error

    def _rpc(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._instance.supervisor_socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


def _config_file(instance: Instance) -> Path:
    return instance.dir / "supervisord.conf"


def _common_environment(instance: Instance) -> dict[str, str]:
    """What every part gets, and nothing else of the shell that happened to call scripts/up."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
    root = instance.project_dir
    return {
        **kept,
        MARKER: str(instance.dir),
        "ENCORE_INSTANCE": instance.name,
        "TMPDIR": str(instance.tmp_dir),
        "PYTHONPATH": f"{root / 'localstack'}:{root / 'layers' / 'booking'}",
        "PYTHONUNBUFFERED": "1",
    }


def _config(instance: Instance, parts: Iterable[Part]) -> str:
    sections = [
        _section(
            "unix_http_server",
            file=_escape(str(instance.supervisor_socket)),
            chmod="0700",
        ),
        _section(
            "supervisord",
            logfile=_escape(str(instance.log_file("supervisord"))),
            logfile_maxbytes=_LOG_BYTES_MAX,
            logfile_backups=1,
            pidfile=_escape(str(instance.run_dir / "supervisord.pid")),
            childlogdir=_escape(str(instance.log_dir)),
            minfds=4096,
            nodaemon="false",
            **({"user": "root"} if os.getuid() == 0 else {}),
        ),
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
        *(_program(instance, part) for part in parts),
    ]
    return "; Written by scripts/up.\n\n" + "\n".join(sections)


def _program(instance: Instance, part: Part) -> str:
    variables = {**part.environment(instance), PART_MARKER: part.name}
    restarts = part.restarts_when_it_dies(instance)
    environment = ",".join(f'{key}="{value}"' for key, value in sorted(variables.items()))
    return _section(
        f"program:{part.name}",
        command=_escape(" ".join(_quote(word) for word in part.command(instance))),
        directory=_escape(str(instance.project_dir)),
        environment=_escape(environment),
        autostart="false",
        autorestart="true" if restarts else "false",
        startsecs=1,
        startretries=5 if restarts else 0,
        stopsignal=part.stop_signal,
        stopwaitsecs=part.stop_wait_s,
        stopasgroup="false",
        killasgroup="true",
        redirect_stderr="true",
        stdout_logfile=_escape(str(instance.log_file(part.name))),
        stdout_logfile_maxbytes=_LOG_BYTES_MAX,
        stdout_logfile_backups=1,
    )


def _section(name: str, **settings: object) -> str:
    return "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in settings.items() if value != ""), ""])


def _quote(word: str) -> str:
    return f'"{word}"' if any(character in word for character in " ;'") else word


def _escape(text: str) -> str:
    return text.replace("%", "%%")
