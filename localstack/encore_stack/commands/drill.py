"""`scripts/drill`: break something under load, and see that what must hold holds."""

import argparse
import fcntl
import os
import shlex
import signal
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from drills.harness.drill import Drill, all_drills
from drills.harness.run import run_drill
from drills.harness.stage import INSTANCE, NotADrills, instance_for_drills, set_up, take_down
from encore_stack.instance import Instance
from encore_stack.parts.localstack import deployed_api_url
from encore_stack.stack import StackError

_ALL = "all"
_DURATION_S_MAX = 900
_WIDTH = 118

_DESCRIPTION = f"""\
Replay an incident: people join, poll as they are told, reserve, pay and fetch tickets; something breaks and is healed;
a timeline shows what they saw; bounds and the audit decide. A drill runs on an instance of its own ('{INSTANCE}', or a
new one that ENCORE_INSTANCE names), which is started for it and forgotten afterwards, all but its records.

  scripts/drill --list [NAME]    every drill, or those: what breaks, what must hold, how long it takes
  scripts/drill redis-wiped      play one
  scripts/drill redis            play those whose names begin so
  scripts/drill all              play all, one after the other"""

_EPILOG = """\
The record (report.html, record.json, answers.csv with every answer, people.csv with every person, audit.txt) lies in
.stack/<instance>/drills/.

exit codes: 0 passed, 1 a bound or the audit failed or the drill could not be played, 2 bad options,
130 interrupted"""


def run(arguments: Sequence[str]) -> int:
    """Exit codes: 0 passed, 1 failed, 2 misused, 130 interrupted."""
    known = all_drills()
    options = _parser().parse_args(arguments)
    if options.list and options.name is None:
        options.name = _ALL
    chosen = [drill for drill in known if options.name == _ALL or f"{drill.name}-".startswith(f"{options.name}-")]
    if fault := _misused(options, chosen, known):
        print(f"error: {fault} (see scripts/drill --help)", file=sys.stderr)
        return 2
    if options.list:
        print("\n\n".join(map(_describe, chosen)))
        return 0
    try:
        instance = instance_for_drills()
    except NotADrills as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    with _alone(instance) as is_alone:
        if not is_alone:
            print(f"error: another drill runs on instance '{instance.name}'", file=sys.stderr)
            return 1
        return _play(chosen, options, shlex.join(["scripts/drill", *arguments]))


def _play(chosen: Sequence[Drill], options: argparse.Namespace, command: str) -> int:
    """All chosen drills, those on the same servers together; whatever happens, the instance is taken down."""
    failed: list[str] = []
    # Told to end it cleans up, as after Ctrl-C: nothing stays broken, and the instance goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for drill in sorted(chosen, key=lambda drill: str(drill.topology)):
            stage = set_up(drill.topology)
            if options.target == "localstack" and not deployed_api_url(stage.instance):
                raise StackError("LocalStack has nothing deployed")
            outcome = run_drill(
                stage, drill, target=options.target, duration_s=options.duration or drill.duration_s, command=command
            )
            if outcome.failures():
                failed.append(drill.name)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        if options.keep:
            name = os.environ["ENCORE_INSTANCE"]
            print(f"the instance stays up: ENCORE_INSTANCE={name} scripts/status; the next drill uses it again")
        else:
            take_down()
    if len(chosen) > 1:
        print(f"{len(chosen) - len(failed)} of {len(chosen)} drills passed; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _misused(options: argparse.Namespace, chosen: Sequence[Drill], known: Sequence[Drill]) -> str | None:
    there_are = f"there are: {', '.join(drill.name for drill in known)}"
    if options.name is None:
        return f"which drill? {there_are}; scripts/drill --list NAME tells what one breaks"
    if not chosen:
        return f"no drill is called '{options.name}'; {there_are}"
    shortest_s = max(drill.duration_s for drill in chosen)
    if options.duration is not None and not shortest_s <= options.duration <= _DURATION_S_MAX:
        return f"--duration must be from {shortest_s} (what the drill needs) to {_DURATION_S_MAX} seconds"
    return None


def _describe(drill: Drill) -> str:
    topology = drill.topology
    brokers = f"{topology.brokers} Kafka broker{'s' if topology.brokers > 1 else ''}"
    servers = f"Redis {topology.redis}, Postgres {topology.postgres}, {brokers}"
    bounds = "; ".join(map(str, [drill.felt, *drill.bounds]))
    asserted = textwrap.fill(f"asserts  {bounds}; the audit", _WIDTH, initial_indent="  ", subsequent_indent=" " * 11)
    takes = f"{drill.duration_s} s, and about a minute more to start its servers, see people home and audit"
    return f"{drill.name}\n  breaks   {drill.breaks}\n{asserted}\n  takes    {takes}; on {servers}"


@contextmanager
def _alone(instance: Instance) -> Iterator[bool]:
    """Whether no other drill runs on this instance, which then stays so."""
    instance.dir.parent.mkdir(parents=True, exist_ok=True)
    with (instance.dir.parent / f".{instance.name}.drill.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/drill",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", help="which drill, the beginning of several names, or 'all'")
    parser.add_argument("--list", action="store_true", help="describe them and end")
    parser.add_argument(
        "--duration", type=int, metavar="SECONDS", help="make it longer: each of its waits is stretched alike"
    )
    parser.add_argument(
        "--target",
        choices=("gateway", "localstack"),
        default="gateway",
        help="which URL the people use: the fast gateway (default), or the API as it is deployed",
    )
    parser.add_argument("--keep", action="store_true", help="leave the instance up: the next drill starts at once")
    return parser
