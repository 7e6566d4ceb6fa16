"""What each part of an instance spends of the CPU, and how busy the machine is."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from encore_stack.instance import Instance
from encore_stack.stack import Stack

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_FUNCTION = b"AWS_LAMBDA_FUNCTION_NAME="
_IDLE = (3, 4)
"""Of the fields of /proc/stat's first line: idle, and waiting for a disk."""

CpuSeconds = Mapping[str, float]


def spent_s(instance: Instance) -> CpuSeconds:
    """CPU seconds of each part so far, what has ended included; LocalStack's functions each by its name."""
    parts = {process.pid: name for name, process in Stack(instance).supervisor.processes().items() if process.pid}
    parents, spent = _processes()
    seconds: dict[str, float] = defaultdict(float)
    for pid, ticks in spent.items():
        if part := _part_of(pid, parents, parts):
            seconds[_function_of(pid) or part if part == "localstack" else part] += ticks / _TICKS_PER_S
    return seconds


def machine_s() -> tuple[float, float]:
    """CPU seconds of the machine so far: busy ones, and all."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - sum(fields[field] for field in _IDLE)) / _TICKS_PER_S, sum(fields) / _TICKS_PER_S


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these processes so far, and of their children that have ended."""
    seconds = 0.0
    for pid in pids:
        with suppress(OSError):  # what has ended just now is counted with its parent
            seconds += _parent_and_ticks(pid)[1] / _TICKS_PER_S
    return seconds


def _processes() -> tuple[dict[int, int], dict[int, int]]:
    """Of every process its parent, and the CPU ticks of itself and of its children that have ended."""
    parents, spent = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        with suppress(OSError):  # what has ended just now is counted with its parent
            parents[pid], spent[pid] = _parent_and_ticks(pid)
    return parents, spent


def _parent_and_ticks(pid: int) -> tuple[int, int]:
    """Raises OSError for a process that has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), sum(map(int, fields[11:15]))


def _part_of(pid: int, parents: Mapping[int, int], parts: Mapping[int, str]) -> str | None:
    while pid and pid not in parts:
        pid = parents.get(pid, 0)
    return parts.get(pid)


def _function_of(pid: int) -> str | None:
    """The function whose environment this process is, without the stack's name."""
    with suppress(OSError):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith(_FUNCTION):
                return variable.removeprefix(_FUNCTION).decode().partition("-")[2]
    return None
