"""scripts/bench --partitions: which sizes it takes, its table, and that it asks for room on the disk first."""

import argparse
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from benchmarks.measure import Result
from benchmarks.partitions import SIZES, Size, as_markdown, measure_partitions
from benchmarks.tools import ToolError
from encore_stack.commands.bench import _seats
from encore_stack.instance import Instance

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.mark.parametrize("text", ["15000", *map(str, SIZES)])
def test_sizes_of_whole_concerts_are_taken(text: str) -> None:
    assert _seats(text) == int(text)


@pytest.mark.parametrize("text", ["0", "15001", "150000000", "1.5M", "-15000"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no multiple of 15,000"):
        _seats(text)


def test_the_table_has_costs_as_ratios() -> None:
    load = Result("15,000 seats", "load", "one table", None, [0.1, 0.2], [0.2, 0.2])
    holds = Result("15,000 seats", "hold_seats", "one table", None, [800, 1000, 900], [1000, 1000, 1800])

    table = as_markdown([Size(15_000, [load, holds])]).splitlines()

    assert table[2] == "| 15,000 | load, s | 5.0 | 6.7 | 1.50 | 1.00-2.00 |"
    assert table[3] == "| 15,000 | hold_seats, /s | 1,000 | 900 | 1.25 | 1.00-2.00 |"


def test_a_disk_that_is_too_small_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 2**30))
    monkeypatch.setattr(Instance, "load", lambda name: Instance(name, tmp_path))

    with pytest.raises(ToolError, match=r"need about 14 GiB .* where 1 GiB are free"):
        measure_partitions([15_000_000], 1, 1, keep=False, tell=print)
