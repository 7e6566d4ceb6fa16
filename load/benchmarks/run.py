"""A whole run: the stage, the groups one after the other, the audit."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import cases
from benchmarks.empty_function import deploy_empty_function
from benchmarks.measure import Case, Result, measure
from benchmarks.stage import INSTANCE, Stage
from benchmarks.tools import ToolError
from booking import payment
from booking.platform.postgres import primary
from encore_stack.deployment import deploy
from encore_stack.deployment.target import target_of
from encore_stack.parts.base import Unhealthy, probe_http
from encore_stack.parts.localstack import leave_deploying_to_up
from encore_stack.stack import Stack

_CPU_CALLS = 300
_LUA_CALLS = 20_000
_GATEWAY_START_S = 20.0
_SETTLE_S_MAX = 60.0
_SETTLE_TICK_S = 0.2
_UNSETTLED = "select exists (select from payment where status in ('pending', 'refunding'))"


@dataclass(frozen=True)
class Plan:
    """What to measure: groups of ``cases.GROUPS``, a part of the names, how often and for how long each."""

    groups: Sequence[str]
    match: str
    rounds: int
    duration_s: float


def measure_all(plan: Plan, tell: Callable[[str], None]) -> list[Result]:
    """Measure everything in the plan; no payment stays open. Raises ToolError, and what starting the stack raises."""
    stage = Stage(tell)
    stage.set_up()
    results: list[Result] = []
    for group in cases.GROUPS:
        if group in plan.groups:
            results += _run_group(group, stage, plan, tell)
    _settle_payments()
    return results


def _run_group(group: str, stage: Stage, plan: Plan, tell: Callable[[str], None]) -> list[Result]:
    def measured(found: Iterator[Case]) -> list[Result]:
        return [measure(case, plan.rounds, tell) for case in found if plan.match in case.name]

    match group:
        case "localstack":
            with _localstack(stage, tell) as (api_url, empty_url):
                return measured(cases.localstack_cases(stage, api_url, empty_url, plan.duration_s))
        case "http":
            with own_gateway(stage, tell) as base_url:
                return measured(cases.http_cases(stage, base_url, plan.duration_s))
        case "cpu":
            return measured(cases.cpu_cases(stage, _CPU_CALLS))
        case "lua":
            return measured(cases.lua_cases(stage, _LUA_CALLS))
        case _:
            return measured(cases.sql_cases(stage, plan.duration_s))


def _settle_payments() -> None:
    """Settle the payments that the end of a measurement has cut off: no background loop of this instance would."""
    deadline = time.monotonic() + _SETTLE_S_MAX
    while primary().value(_UNSETTLED) and time.monotonic() < deadline:
        if not payment.settle_due():
            time.sleep(_SETTLE_TICK_S)


def audit(*options: str) -> int:
    """scripts/audit of the benchmarks' instance; returns its exit code. By default without I6: no relay works there."""
    command = [sys.executable, "-m", "encore_stack", "audit", *(options or ("--without", "I6"))]
    return subprocess.run(
        command, check=False, stdout=sys.stderr, env={**os.environ, "ENCORE_INSTANCE": INSTANCE}
    ).returncode


@contextmanager
def own_gateway(stage: Stage, tell: Callable[[str], None]) -> Iterator[str]:
    """A gateway of the benchmarks' own, with the floors; yields its URL."""
    tell("the gateway")
    port = stage.instance.ports["gateway"]  # the instance's own gateway, which has no floors, is not started
    environment = {**os.environ, **stage.environment()}
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.gateway"], env=environment)
    try:
        _await_gateway(process, port)
        yield stage.instance.url("gateway")
    finally:
        process.terminate()
        process.wait()


def _await_gateway(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + _GATEWAY_START_S
    while True:
        try:
            probe_http(port, "/healthz")
            return
        except Unhealthy as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ToolError(f"the benchmarks' gateway does not start: {error}") from error
        time.sleep(0.1)


@contextmanager
def _localstack(stage: Stage, tell: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """LocalStack with the bundle and an empty function; yields the URLs of both. It is stopped afterwards.

    The background loops are not started: they would be measured too.
    """
    tell("LocalStack")
    stack, instance = Stack(stage.instance), stage.instance
    leave_deploying_to_up(instance)
    stack.up(("localstack",))
    try:
        target = target_of(instance)
        api_url = deploy.deploy(target, lambda line: None)
        events = target.client("events")
        for rule in events.list_rules()["Rules"]:
            events.disable_rule(Name=rule["Name"])
        yield api_url, deploy_empty_function(instance)
    finally:
        stack.supervisor.stop_part("localstack")
