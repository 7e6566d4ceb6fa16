"""A forgotten transaction on the deployed stack: the loop ends it, and the operator's verb tells of it."""

import json
import subprocess
from collections.abc import Callable

from encore_stack.instance import Instance
from encore_stack.parts.postgres import connect
from support.waiting import wait_for


def test_the_deployed_loop_ends_who_sits_on_seats_and_the_verb_tells(
    instance: Instance, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    culprit = connect(instance, instance.postgres_primary)
    [[pid]] = culprit.run("select pg_backend_pid()")
    culprit.run("begin")
    culprit.run("select number from seat where schedule_id = 101 and number = 150 for update")

    def shown(which: str) -> list[dict[str, object]]:
        told = json.loads(run_script("long-locks", "--json").stdout)
        return [one for one in told[which] if one["pid"] == pid]

    assert [one["holds"] for one in shown("now")] == [["seat"]]
    [record] = wait_for(lambda: shown("record"), every_s=0.5)

    assert record["ended_by"] == "every_minute_end_long_locks" and record["fault"] is None
    assert shown("now") == []
    assert "ended by every_minute_end_long_locks" in run_script("long-locks").stdout
    assert run_script("long-locks", "--end", str(pid)).returncode == 1
