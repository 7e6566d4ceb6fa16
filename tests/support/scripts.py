"""The verbs of scripts/, run as a person runs them, and their Python alone."""

import os
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from unittest.mock import patch

from encore_stack.__main__ import main
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


def call_verb(verb: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As ``run_script``, in this process: starting another takes longer than all that a verb does to refuse a call."""
    command = ["encore_stack", verb.replace("-", "_"), *arguments]
    said, complained = StringIO(), StringIO()
    with (
        patch.dict(os.environ, environment),
        patch("sys.argv", command),
        redirect_stdout(said),
        redirect_stderr(complained),
    ):
        try:
            code = main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(command, code, said.getvalue(), complained.getvalue())
