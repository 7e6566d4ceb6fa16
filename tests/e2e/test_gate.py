"""scripts/gate on a running stack: what it prints, its exit codes, and that the line obeys."""

import json
import subprocess
from collections.abc import Callable

import httpx

from encore_stack.instance import Instance

Script = Callable[..., subprocess.CompletedProcess[str]]
CONCERT = "4"


def test_a_change_is_told_to_the_line_and_shown(run_script: Script, instance: Instance) -> None:
    joined = httpx.post(
        f"{instance.url('gateway')}/queue/tokens", json={"concert_id": 4, "user_id": "gate-test"}, trust_env=False
    )
    assert joined.status_code in (200, 201)

    done = run_script("gate", "message", CONCERT, "doors open soon", "--reason", "a test")
    assert done.returncode == 0, done.stderr
    assert "in force now: capacity 1,000, rate 200/s, open, message 'doors open soon'" in done.stdout

    shown = run_script("gate", "show", CONCERT)
    assert shown.returncode == 0, shown.stderr
    assert "  message    doors open soon\n" in shown.stdout
    assert "  line       open, lets people in\n" in shown.stdout
    assert ": a test\n" in shown.stdout

    assert run_script("gate", "message", CONCERT).returncode == 0
    answer = json.loads(run_script("gate", "show", CONCERT, "--json").stdout)
    assert answer["settings"]["message"] == ""
    assert [change["action"] for change in answer["changes"][:2]] == ["message", "message"]
    assert answer["live"]["change_id"] == answer["changes"][0]["id"]


def test_what_cannot_be_done_is_told(run_script: Script) -> None:
    unusable = run_script("gate", "capacity", CONCERT, "lots")
    assert (unusable.returncode, unusable.stdout) == (2, "")
    assert "error: capacity: must be a whole number from 0 to 1,000,000, not 'lots'" in unusable.stderr

    unknown = run_script("gate", "pause", "999999")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "error: no concert 999999" in unknown.stderr


def test_a_new_epoch_needs_a_yes(run_script: Script) -> None:
    before = json.loads(run_script("gate", "show", CONCERT, "--json").stdout)["settings"]["epoch"]
    assert run_script("gate", "restart", CONCERT).returncode == 2
    assert run_script("gate", "restart", CONCERT, "--yes").returncode == 0
    assert json.loads(run_script("gate", "show", CONCERT, "--json").stdout)["settings"]["epoch"] == before + 1
