"""scripts/stack."""

import argparse
import sys
from collections.abc import Sequence

from encore_stack.instance import Instance
from encore_stack.parts import PART_NAMES
from encore_stack.progress import step
from encore_stack.stack import Stack


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/stack",
        description="Hold one part down, bring it back, promote it, or take work off it.",
    )
    parser.add_argument("action", choices=["stop", "start", "promote", "isolate", "rejoin"])
    parser.add_argument("part")
    options = parser.parse_args(arguments)
    if options.part not in PART_NAMES:
        print(f"error: no part is called '{options.part}'; the parts are: {' '.join(PART_NAMES)}", file=sys.stderr)
        return 2
    stack = Stack(Instance.load_existing())
    if not stack.supervisor.is_running():
        print("error: the stack is not running: scripts/up starts it", file=sys.stderr)
        return 1
    if options.action == "stop":
        with step(f"stop {options.part}; it stays down until 'scripts/stack start {options.part}' or 'scripts/up'"):
            stack.stop(options.part)
    elif options.action == "promote":
        before = stack.instance.postgres_primary
        with step(f"make {options.part} the primary; {before} stays down until 'scripts/stack start {before}'"):
            stack.promote(options.part)
        print(f"  if {before} was lost and replication was asynchronous: scripts/after-failover")
    elif options.action == "isolate":
        with step(f"move leaders and replicas off {options.part} until 'scripts/stack rejoin {options.part}'"):
            moved = stack.isolate(options.part)
        print(f"  {moved} partitions are on the other brokers alone")
    elif options.action == "rejoin":
        with step(f"give {options.part} its replicas back"):
            moved = stack.rejoin(options.part)
        print(f"  {moved} partitions are in sync on all brokers again")
    else:
        with step(f"start {options.part}"):
            stack.start(options.part)
    return 0
