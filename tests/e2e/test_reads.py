"""scripts/reads on a running stack: what it prints, its exit codes, and that the functions obey at once."""

import json
import subprocess
from collections.abc import Callable

import httpx

from encore_stack import redis_roles
from encore_stack.instance import Instance
from support.client import Person

Script = Callable[..., subprocess.CompletedProcess[str]]
CONCERT, SCHEDULE = 3, 301


def kept(instance: Instance) -> list[bool]:
    """Whether the seat map and the list of schedules are in the cache."""
    with redis_roles.asking(instance, "redis") as ask:
        keys = (f"seatmap:{{s{SCHEDULE}}}:map", f"catalog:{{c{CONCERT}}}:schedules")
        return [ask("GETRANGE", key, 0, 0) not in (b"", b"-") for key in keys]


def test_the_functions_read_where_they_are_told_to(http: httpx.Client, run_script: Script, instance: Instance) -> None:
    person = Person(http).join(CONCERT)

    def look() -> list[bool]:
        assert http.get(f"schedules/{SCHEDULE}/seats", headers=person.with_pass).status_code == 200
        assert http.get(f"concerts/{CONCERT}/schedules").status_code == 200
        return kept(instance)

    assert look() == [True, True]
    try:
        done = run_script("reads", "database", str(CONCERT), "--reason", "a test")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"concert {CONCERT}: seat maps of 4 schedules, and their list: from the database\n"
        assert look() == [False, False]

        shown = run_script("reads", "show", str(CONCERT))
        assert shown.returncode == 0, shown.stderr
        assert "  reads      from the database\n  told       everybody: past the cache\n" in shown.stdout
        assert ": a test\n" in shown.stdout
    finally:
        done = run_script("reads", "cache", str(CONCERT), "--json")
    assert json.loads(done.stdout) == {"concert_id": CONCERT, "source": "cache", "schedules": 4, "in_force": True}
    assert look() == [True, True]
    assert json.loads(run_script("reads", "show", str(CONCERT), "--json").stdout)["source"] == "cache"


def test_what_cannot_be_done_is_told(run_script: Script) -> None:
    unusable = run_script("reads", "database", str(CONCERT), "--reason", "x" * 501)
    assert (unusable.returncode, unusable.stdout) == (2, "")
    assert "error: a reason may have 500 characters" in unusable.stderr

    unknown = run_script("reads", "database", "999999")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "error: no concert 999999" in unknown.stderr
