"""The results as a table for people and as JSON for the next run to be put beside."""

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import Result
from encore_stack.instance import PROJECT_DIR

Earlier = Mapping[tuple[str, str], Mapping[str, Any]]

_TITLES = {
    "localstack": "Through LocalStack's API Gateway, 8 connections (requests a second)",
    "cpu": "In one process, servers left out (requests a second of CPU)",
    "lua": "Lua by redis-benchmark, 16 clients (calls a second)",
    "sql": "SQL by pgbench, 16 clients, prepared (transactions a second)",
    "http": "Through the fast gateway, wrk with 32 connections, steps 6 and 7 with 16 (requests a second)",
}


class BadReport(Exception):
    """The file is not a report of an earlier run; the message says so."""


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """As in the pages of load/."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def as_json(results: Sequence[Result], settings: Mapping[str, float]) -> str:
    """The whole run: where it was made, each round's rates, the ratios."""
    return json.dumps(
        {
            "encore_benchmark": 1,
            "commit": _commit(),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": os.cpu_count(),
            **settings,
            "results": [
                {
                    "group": result.group,
                    "name": result.name,
                    "floor": result.floor_name,
                    "rates": [round(rate, 1) for rate in result.rates],
                    "floor_rates": [round(rate, 1) for rate in result.floor_rates],
                    "times": None if result.fault else [round(ratio, 3) for ratio in result.times],
                    "times_max": result.times_max,
                    "fault": result.fault,
                }
                for result in results
            ],
        },
        indent=1,
    )


def read_earlier(file: Path) -> Earlier:
    """An earlier run's results by group and name. Raises BadReport."""
    try:
        report = json.loads(file.read_text())
        if report["encore_benchmark"] != 1:
            raise BadReport(f"{file} is of another version of scripts/bench")
        return {(each["group"], each["name"]): each for each in report["results"]}
    except OSError as error:
        raise BadReport(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadReport(f"{file} is not what `scripts/bench --json` writes") from error


def as_table(results: Sequence[Result], earlier: Earlier | None = None) -> str:
    """One line a case: its rate, its floor's, and the cost in floors with its spread over the rounds."""
    lines = []
    for group in dict.fromkeys(result.group for result in results):
        lines += ["", _TITLES[group], _row("", "rate", "floor", "x floor", "(least-most)", "may", "then", "floor is")]
        lines += [_line(result, earlier) for result in results if result.group == group]
    if earlier is not None:
        lines += ["", "then: the earlier run's x floor; better and worse only where the two spreads do not meet"]
    return "\n".join(lines).lstrip("\n")


def _line(result: Result, earlier: Earlier | None) -> str:
    if result.fault:
        return f"  {result.name:<30} could not be measured: {result.fault}"
    median, least, most = result.times
    rate, floor_rate = map(statistics.median, (result.rates, result.floor_rates))
    may = f"{result.times_max:g}" if result.times_max else ""
    if result.times_max:
        may += " ok" if median <= result.times_max else " OVER"
    then = _then(result, earlier) if earlier is not None else ""
    spread = f"({least:.2f}-{most:.2f})"
    return _row(
        result.name, f"{rate:,.0f}", f"{floor_rate:,.0f}", f"{median:.2f}", spread, may, then, result.floor_name
    )


def _then(result: Result, earlier: Earlier) -> str:
    before = earlier.get((result.group, result.name))
    if before is None or before["times"] is None:
        return "-"
    (_, least, most), (median_then, least_then, most_then) = result.times, before["times"]
    verdict = " better" if most < least_then else " worse" if least > most_then else ""
    return f"{median_then:.2f}{verdict}"


def _row(name: str, rate: str, floor: str, times: str, spread: str, may: str, then: str, floor_name: str) -> str:
    told = f"  {name:<30} {rate:>9} {floor:>9} {times:>8} {spread:<14} {may:<9}"
    return f"{told}{then:<14}{floor_name}".rstrip()


def _commit() -> str:
    """The commit, with a mark when files differ from it."""
    command = ["git", "-C", str(PROJECT_DIR), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
