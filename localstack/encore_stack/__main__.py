"""The verbs of scripts/: `python -m encore_stack up|down|…`, one module each in encore_stack.commands.

Exit codes: 0 done, 1 failed, 2 misused.
"""

import importlib
import os
import pkgutil
import sys

from encore_stack import commands
from encore_stack.instance import BadInstance
from encore_stack.parts import PartError, Unhealthy
from encore_stack.ports import PortTaken
from encore_stack.stack import StackError
from encore_stack.supervisor import SupervisorError

VERBS = sorted(module.name for module in pkgutil.iter_modules(commands.__path__) if not module.name.startswith("_"))


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in VERBS:
        print(f"usage: python -m encore_stack {'|'.join(VERBS)} ...", file=sys.stderr)
        return 2
    command = importlib.import_module(f"encore_stack.commands.{sys.argv[1]}")
    try:
        return int(command.run(sys.argv[2:]))
    except BadInstance as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StackError, SupervisorError, PartError, PortTaken, Unhealthy) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output has seen enough: `scripts/status | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives as long as the process
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: what was started goes on; scripts/status shows it, scripts/down ends it", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
