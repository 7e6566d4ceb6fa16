"""scripts/down."""

import argparse
from collections.abc import Sequence

from encore_stack.instance import Instance
from encore_stack.progress import line, step
from encore_stack.stack import Stack


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/down", description="Stop every part of the local stack.")
    parser.add_argument("--wipe", action="store_true", help="also forget the instance's data")
    wipe = parser.parse_args(arguments).wipe
    instance = Instance.load()
    if not instance.dir.exists():
        print(f"instance {instance.name}: nothing is running, nothing is stored")
        return 0
    print(f"instance {instance.name}:")
    with step("stop all parts and wipe the data" if wipe else "stop all parts (data is kept)"):
        forced = Stack(instance).down(wipe=wipe)
    for command in forced:
        line(f"ended by force: {command[:100]}")
    return 0
