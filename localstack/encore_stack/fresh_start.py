"""`python -m encore_stack.fresh_start PART COMMAND...`: become the command, once nothing of an earlier run is left.

A part of several processes whose first one is killed leaves the others behind, on its port. The supervisor knows only
the first, so the next start ends them.
"""

import os
import sys

from encore_stack.instance import Instance
from encore_stack.processes import end_strays


def main() -> None:
    part, *command = sys.argv[1:]
    for ended in end_strays(Instance.load(), part):
        print(f"ended what an earlier {part} left behind: {ended}", flush=True)
    os.execvp(command[0], command)  # noqa: S606 - no shell


if __name__ == "__main__":
    main()
