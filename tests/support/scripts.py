"""The verbs of scripts/, run as a person runs them."""

import os
import subprocess

from encore_stack.instance import PROJECT_DIR


def run_script(
    verb: str, *arguments: str, timeout_s: float = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What became of ``scripts/<verb>``, in this process's environment and what is added to it."""
    return subprocess.run(
        [PROJECT_DIR / "scripts" / verb, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
