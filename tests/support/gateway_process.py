"""The fast gateway as processes of a test's own, which may be killed and whose clock may be wrong."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx

from encore_stack.instance import PROJECT_DIR

_WAIT_S_MAX = 30
_CONNECTIONS = 8
"""Of each worker to Postgres, which takes 200."""
_WRONG_CLOCK = """\
import time
_right = time.time
time.time = lambda: _right() + ({off_by_s})
"""


class GatewayProcess:
    """Serves the bundle with the environment of the test, and these settings, until ``processes`` is closed."""

    def __init__(
        self, processes: ExitStack, port: int, *, workers: int = 2, python_path: Path | None = None, **settings: str
    ) -> None:
        paths = [
            *([python_path] if python_path else []),
            PROJECT_DIR / "localstack",
            PROJECT_DIR / "layers" / "booking",
        ]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "ENCORE_GATEWAY_PORT": str(port),
            "ENCORE_GATEWAY_WORKERS": str(workers),
            "ENCORE_GATEWAY_CONNECTIONS": str(_CONNECTIONS),
            **{f"ENCORE_{name.upper()}": value for name, value in settings.items()},
        }
        self.url = f"http://127.0.0.1:{port}/"
        self._process = subprocess.Popen([sys.executable, "-m", "fast_gateway"], env=environment)
        processes.callback(self._stop)
        self._wait_until_it_answers()

    def kill_workers(self) -> None:
        """End the processes that answer, in whatever they are doing; the gateway starts others."""
        _kill(self._workers())

    def _workers(self) -> list[int]:
        threads = Path(f"/proc/{self._process.pid}/task").iterdir()
        children = {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}
        return sorted(children)

    def _wait_until_it_answers(self) -> None:
        deadline_s = time.monotonic() + _WAIT_S_MAX
        while self._process.poll() is None and time.monotonic() < deadline_s:
            with suppress(httpx.TransportError):
                health = httpx.get(f"{self.url}healthz", trust_env=False)
                assert health.json() == {"message": "ok"}
                return
            time.sleep(0.02)
        raise AssertionError(f"the gateway does not answer: {self._process.poll()}")

    def _stop(self) -> None:
        workers = self._workers()
        self._process.kill()  # first, or it would start others
        self._process.wait(_WAIT_S_MAX)
        _kill(workers)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wrong_clock(folder: Path, off_by_s: int) -> Path:
    """A folder for ``python_path`` that puts the clock of every Python process that is started with it off."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_WRONG_CLOCK.format(off_by_s=off_by_s))
    return folder
