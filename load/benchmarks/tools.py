"""The load tools, each run for a bounded time: wrk for HTTP, pgbench for SQL, redis-benchmark for Redis and its Lua."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from encore_stack.parts.base import find_program

REPLAY = Path(__file__).with_name("replay.lua")
THREADS = 2
_MARGIN_S = 30


class ToolError(Exception):
    """A load tool failed or what it asked was not answered well; the message has its last words."""


def wrk(base_url: str, requests: Sequence[bytes], connections: int, duration_s: float, *, once: bool = False) -> float:
    """Requests a second over ``connections`` for ``duration_s``; ``once``: none may be sent twice.

    Raises ToolError when a request was not answered with 2xx, or too few were prepared.
    """
    told = _wrk(base_url, requests, connections, duration_s)
    if once and told["repeated"]:
        raise ToolError(f"{told['repeated']} requests were sent twice: {len(requests)} are too few")
    return float(told["requests"] / told["duration_us"] * 1e6)


def wrk_all(base_url: str, requests: Sequence[bytes], connections: int, within_s: float) -> None:
    """Send each request, as fast as ``connections`` allow, until all are answered. The last few may be sent twice.

    Raises ToolError when one was not answered with 2xx, or not all were within the time.
    """
    told = _wrk(base_url, requests, connections, within_s, "once")
    if told["requests"] < len(requests):
        raise ToolError(f"{told['requests']:,} of {len(requests):,} requests were answered within {within_s:g} s")


def _wrk(base_url: str, requests: Sequence[bytes], connections: int, duration_s: float, *how: str) -> dict[str, int]:
    """What replay.lua told. Raises ToolError when a request was not answered with 2xx."""
    threads = min(THREADS, connections)
    with TemporaryDirectory() as folder:
        file = Path(folder, "requests")
        file.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))
        output = _run(
            [find_program("wrk"), "--threads", str(threads), "--connections", str(connections)],
            ["--duration", f"{max(1, round(duration_s))}s", "--timeout", "10s", "--script", str(REPLAY), base_url],
            ["--", str(file), str(threads), *how],
            timeout_s=duration_s + _MARGIN_S,
        )
    told: dict[str, int] = json.loads(output[output.rindex("\n{") :])
    if not told["requests"]:
        raise ToolError(f"nothing was answered within {duration_s:g} s")
    if told["refused"] or told["broken"]:
        raise ToolError(f"{told['refused']} of {told['requests']} requests were refused, {told['broken']} broken")
    return told


def pgbench(
    libpq: Mapping[str, str],
    script: str,
    clients: int,
    duration_s: float,
    variables: Mapping[str, str | int] | None = None,
    rate_per_s: float | None = None,
) -> float:
    """Transactions a second of a script, prepared; ``libpq`` says where. Raises ToolError also when one failed.

    ``rate_per_s``: no more than that, at random intervals; None: as many as the clients can.
    """
    with TemporaryDirectory() as folder:
        file = Path(folder, "script.sql")
        file.write_text(script)
        output = _run(
            [find_program("/usr/lib/postgresql/15/bin/pgbench", "pgbench"), "--no-vacuum", "--protocol=prepared"],
            [f"--client={clients}", f"--jobs={min(THREADS, clients)}", f"--time={max(1, round(duration_s))}"],
            [f"--rate={rate_per_s:g}"] if rate_per_s else [],
            [f"--define={name}={value}" for name, value in (variables or {}).items()],
            ["--file", str(file)],
            environment=libpq,
            timeout_s=duration_s + _MARGIN_S,
        )
    failed = re.search(r"number of failed transactions: (\d+)", output)
    if "ERROR" in output or (failed and failed[1] != "0"):
        raise ToolError(f"pgbench: {output.strip()[-500:]}")
    found = re.search(r"tps = ([\d.]+)", output)
    if found is None:
        raise ToolError(f"pgbench told no rate: {output[-300:]}")
    return float(found[1])


def redis_benchmark(port: int, clients: int, calls: int, command: Sequence[str | int | float]) -> float:
    """Calls of a command a second; ``__rand_int__`` in it is replaced by a number in each call."""
    output = _run(
        [find_program("redis-benchmark"), "-p", str(port), "-c", str(clients), "-n", str(calls), "-r", "1000000000"],
        ["--csv", *map(str, command)],
        timeout_s=120,
    )
    if "ERR" in output or "NOSCRIPT" in output:
        raise ToolError(f"redis-benchmark: {output[-300:]}")
    return float(output.strip().splitlines()[-1].split(",")[1].strip('"'))


def _run(*words: Sequence[str], environment: Mapping[str, str] | None = None, timeout_s: float) -> str:
    command = [word for group in words for word in group]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{Path(command[0]).name} has not ended after {timeout_s:.0f} s") from error
    if done.returncode:
        raise ToolError(f"{Path(command[0]).name} failed ({done.returncode}): {done.stdout[-500:].strip()}")
    return done.stdout
