"""`scripts/load`: buyers by the hundred walk the seven steps, started by artillery; then the audit, then a report."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from artillery.plan import (
    DURATION_S_MAX,
    PROFILES,
    USERS_MAX,
    NotEnoughSeats,
    Profile,
    Target,
    UnusableLoad,
    artillery_config,
    plan_buyers,
    write_buyers,
)
from artillery.report import Audit, Run, as_html, as_text
from artillery.results import UnreadableResults, read_results
from artillery.thresholds import Threshold, ensure, judge, thresholds
from booking.platform.resources import read_text
from encore_stack import progress
from encore_stack.instance import PROJECT_DIR, Instance
from encore_stack.parts.localstack import deployed_api_url
from encore_stack.parts.postgres import connected

_TARGETS: dict[str, tuple[Target, ...]] = {
    "gateway": ("gateway",),
    "localstack": ("localstack",),
    "both": ("gateway", "localstack"),
}
_TARGET_DEFAULT = {"smoke": "both", "steps": "localstack"}
_CONCERTS_MAX = 10
_RUNS_KEPT = 30
_ANSWER_TIMEOUT_S = 30
_AUDIT_SETTLE_S = 120
_STOP_S_MAX = 10
_TAIL_LINES = 15

_SCRIPT = PROJECT_DIR / "load" / "artillery" / "steps.yml"
_FREE_SEATS = read_text("artillery", "free_seats.sql")

_DESCRIPTION = """\
Walk the seven steps as many buyers do, with artillery: join, poll as told, look around, reserve, pay, fetch the ticket.
They think in between, ask again with the same Idempotency-Key where a part is away, pick other seats where somebody was
faster. Some payments are declined first, some requests are sent twice, and in steps a few people leave.

  smoke   8 buyers within seconds: nothing may go wrong and everybody ends with a ticket
  steps   150 buyers in a ramp of a minute: the load test of the report that Encore answers

The audit runs afterwards. The first run installs artillery and Node in .stack/tools (0.7 GB, 1 to 3 minutes)."""

_EPILOG = """\
targets: localstack is the API as it is deployed, so it is what steps loads unless told otherwise; gateway is the same
functions without the emulator, which shows what the bundle itself can do; smoke visits both.

The report (report.html, with report.json and audit.txt) lies in .stack/<instance>/load/; its path is the last line.

exit codes: 0 passed, 1 a threshold is missed, the audit failed or the run could not be made, 2 bad options"""


class RunImpossible(Exception):
    """The run cannot be made or has not come to an end; the message says what to do."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """One run: what is to be done, where to, and the folder for all that comes of it."""

    profile: Profile
    target: Target
    url: str
    folder: Path
    command: str


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 passed, 1 missed a threshold, failed the audit or could not run, 2 bad options, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        profile = PROFILES[options.profile].with_load(options.users, options.duration, options.think)
    except UnusableLoad as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    instance = Instance.load_existing()
    command = shlex.join(["scripts/load", *arguments])
    passed = True
    try:
        plans = [
            _Plan(profile, target, url, _folder(instance, profile, target), command)
            for target, url in _urls(instance, options.target or _TARGET_DEFAULT[profile.name])
        ]
        plan_buyers(profile, _free_seats(instance))
        _install()
        for plan in plans:
            passed = _one_run(instance, plan) and passed
    except (RunImpossible, NotEnoughSeats) as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: no buyer goes on; seats that they held are free again within 5 minutes", file=sys.stderr)
        return 130
    return 0 if passed else 1


def _urls(instance: Instance, choice: str) -> list[tuple[Target, str]]:
    """Where to, each asked once whether it answers. Raises RunImpossible."""
    urls: list[tuple[Target, str]] = []
    for target in _TARGETS[choice]:
        url = instance.url("gateway") if target == "gateway" else deployed_api_url(instance)
        if url is None:
            raise RunImpossible("nothing is deployed; run scripts/up")
        try:
            answer = httpx.get(f"{url.rstrip('/')}/concerts?limit=1", timeout=_ANSWER_TIMEOUT_S, trust_env=False)
            answer.raise_for_status()
        except httpx.HTTPError as fault:
            raise RunImpossible(f"{target} does not answer ({fault}); see scripts/status, or run scripts/up") from fault
        urls.append((target, url))
    return urls


def _folder(instance: Instance, profile: Profile, target: Target) -> Path:
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return instance.dir / "load" / f"{now}-{profile.name}-{target}"


def _free_seats(instance: Instance) -> dict[int, int]:
    with connected(instance, instance.postgres_primary) as connection:
        return dict(connection.run(_FREE_SEATS, concerts_max=_CONCERTS_MAX))


def _install() -> None:
    bootstrap = PROJECT_DIR / "scripts" / "lib" / "bootstrap.sh"
    command = ["bash", "-c", '. "$1"; ensure_load_tools', "scripts/load", str(bootstrap)]
    if subprocess.run(command, check=False).returncode:
        raise RunImpossible("artillery could not be installed (lines above)")


def _one_run(instance: Instance, plan: _Plan) -> bool:
    """Whether it passed. Prints the summary and the path of the report. Raises RunImpossible, NotEnoughSeats."""
    profile = plan.profile
    print(f"{profile.name}: {profile.users:,} buyers within {profile.duration_s} s at {plan.target} ({plan.url})")
    buyers = plan_buyers(profile, _free_seats(instance))
    bounds = thresholds(profile, plan.target, buyers)
    plan.folder.mkdir(parents=True)
    _keep_newest(plan.folder.parent)
    write_buyers(buyers, plan.folder / "buyers.csv")
    config = artillery_config(profile, plan.url, plan.folder / "buyers.csv", ensure(bounds))
    (plan.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    with progress.step("buyers walk the seven steps"):
        artillery_exit = _artillery(instance, plan)
    with progress.step("audit"):
        audit = _audit()
    (plan.folder / "audit.txt").write_text(audit.text)
    outcome = _outcome(plan, bounds, artillery_exit, audit)
    page = plan.folder / "report.html"
    page.write_text(as_html(outcome), encoding="utf-8")
    print(as_text(outcome))
    failures = outcome.failures()
    for words in failures:
        print(f"error: {words}", file=sys.stderr)
    print(f"{profile.name} at {plan.target} {'FAILED' if failures else 'passed'}; report:")
    print(f"  {page.relative_to(instance.project_dir)}", flush=True)
    return not failures


def _artillery(instance: Instance, plan: _Plan) -> int:
    """Run artillery to its end; its exit code. Raises RunImpossible when it does not end."""
    tools = instance.tools_dir / "artillery"
    command: list[str | Path] = [
        tools / "node", tools / "node_modules" / "artillery" / "bin" / "run", "run", "--quiet",
        "--output", plan.folder / "report.json", "--config", plan.folder / "config.json", _SCRIPT,
    ]  # fmt: skip
    # One worker: several would each start the list of buyers from its beginning.
    environment = os.environ | {"ARTILLERY_DISABLE_TELEMETRY": "true", "WORKERS": "1", "NO_COLOR": "1"}
    with (plan.folder / "artillery.log").open("w") as log:
        running = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            return running.wait(plan.profile.ends_within_s)
        except subprocess.TimeoutExpired as fault:
            raise RunImpossible(f"artillery has not ended within {plan.profile.ends_within_s} s") from fault
        finally:
            _stop(running)


def _stop(running: "subprocess.Popen[bytes]") -> None:
    if running.poll() is not None:
        return
    running.terminate()
    try:
        running.wait(_STOP_S_MAX)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()


def _audit() -> Audit:
    command: list[str | Path] = [PROJECT_DIR / "scripts" / "audit", "--settle", str(_AUDIT_SETTLE_S)]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return Audit(done.returncode, done.stdout)


def _outcome(plan: _Plan, bounds: Sequence[Threshold], artillery_exit: int, audit: Audit) -> Run:
    try:
        results, aggregate = read_results(plan.folder / "report.json")
    except UnreadableResults as fault:
        told = (plan.folder / "artillery.log").read_text().splitlines()[-_TAIL_LINES:]
        words = "\n".join(f"    {line}" for line in told)
        raise RunImpossible(f"artillery left no results (exit code {artillery_exit}, {fault}):\n{words}") from fault
    return Run(
        name=plan.profile.name,
        target=plan.target,
        url=plan.url,
        started_at=datetime.fromtimestamp(aggregate["firstMetricAt"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        command=plan.command,
        results=results,
        judged=judge(bounds, aggregate),
        audit=audit,
        artillery_exit=artillery_exit,
    )


def _keep_newest(folder: Path) -> None:
    for old in sorted(path for path in folder.iterdir() if path.is_dir())[:-_RUNS_KEPT]:
        shutil.rmtree(old)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/load",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("profile", choices=list(PROFILES), help="which run")
    parser.add_argument("--target", choices=list(_TARGETS), help="which URL (smoke: both, steps: localstack)")
    parser.add_argument("--users", type=int, metavar="N", help=f"buyers in all (at most {USERS_MAX:,})")
    parser.add_argument(
        "--duration", type=int, metavar="SECONDS", help=f"within which they come (at most {DURATION_S_MAX})"
    )
    parser.add_argument(
        "--think", type=float, metavar="SCALE", help="how long they think (1: 3 to 10 s in all; 0 to 10)"
    )
    return parser
