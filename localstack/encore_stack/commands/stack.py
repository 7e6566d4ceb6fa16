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
        prog="scripts/stack", description="Hold one part down, bring it back, or promote it."
    )
    parser.add_argument("action", choices=["stop", "start", "promote"])
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
    else:
        with step(f"start {options.part}"):
            stack.start(options.part)
    return 0
