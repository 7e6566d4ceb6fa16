"""What it costs to import each function in a fresh interpreter that sees only the function and its layers."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tools import ToolError
from encore_stack.deployment.packages import build_runtime_layer
from encore_stack.functions import function_names
from encore_stack.instance import PROJECT_DIR

_IMPORT = """
import json, sys, time
sys.path[:0] = json.loads(sys.argv[1])
before = time.process_time()
import app
cpu_ms = (time.process_time() - before) * 1000
# Not getrusage: its peak is handed down by the process that started this one.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps([cpu_ms, int(peak.split()[1]) / 1024]))
"""


@dataclass(frozen=True)
class ColdStart:
    """Of one function: CPU milliseconds of its import (median, least, most) and the process's peak memory in MiB."""

    function: str
    cpu_ms: tuple[float, float, float]
    memory_mib: float


def measure_cold_starts(rounds: int, tools_dir: Path, tell: Callable[[str], None]) -> list[ColdStart]:
    """Import every function ``rounds`` times, round by round, compiled modules in place. Raises ToolError."""
    runtime = build_runtime_layer(PROJECT_DIR / "layers" / "runtime", tools_dir, str(tools_dir / "uv" / "bin" / "uv"))
    layers = [str(runtime / "python"), str(PROJECT_DIR / "layers" / "booking")]
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in function_names(PROJECT_DIR)}
    for nth in range(rounds + 1):
        tell(f"cold start: round {nth} of {rounds}" if nth else "cold start: compiling")
        for name, taken in samples.items():
            sample = _import_once([str(PROJECT_DIR / "functions" / name), *layers])
            if nth:  # the first round compiled what had changed
                taken.append(sample)
    return [_summary(name, taken) for name, taken in samples.items()]


def as_markdown(starts: list[ColdStart]) -> str:
    """The table of ``load/cold-start.md``."""
    rows = []
    for each in starts:
        median, least, most = each.cpu_ms
        rows.append(f"| {each.function} | {median:.0f} | {least:.0f}-{most:.0f} | {each.memory_mib:.0f} |")
    return "\n".join(["| function | CPU ms | least-most | peak MiB |", "|---|---|---|---|", *rows])


def _import_once(path: list[str]) -> tuple[float, float]:
    # -I -S: no environment, no user site, no site-packages.
    command = [sys.executable, "-I", "-S", "-c", _IMPORT, json.dumps(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ToolError(f"{path[0]} cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    cpu_ms, memory_mib = json.loads(done.stdout)
    return cpu_ms, memory_mib


def _summary(function: str, samples: list[tuple[float, float]]) -> ColdStart:
    cpu_ms = [cpu for cpu, _ in samples]
    memory_mib = max(memory for _, memory in samples)
    return ColdStart(function, (statistics.median(cpu_ms), min(cpu_ms), max(cpu_ms)), memory_mib)
