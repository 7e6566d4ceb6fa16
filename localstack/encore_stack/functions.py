"""The functions of the bundle by the names that people type."""

from collections.abc import Collection
from pathlib import Path

STACK_NAME = "encore"
"""The CloudFormation stack."""

DEPLOYED_PREFIX = f"{STACK_NAME}-"
"""What comes before a deployed function's name."""


class UnknownFunction(Exception):
    """No function has this name, or several begin with it; the message lists those there are."""


def function_names(project_dir: Path) -> list[str]:
    """The names of the functions' folders, sorted."""
    return sorted(path.parent.name for path in (project_dir / "functions").glob("*/app.py"))


def find_name(typed: str, names: Collection[str]) -> str:
    """The name that is meant: in full, as deployed (``encore-step5_seats``), or by a beginning that only it has.

    Raises UnknownFunction.
    """
    wanted = typed.removeprefix(DEPLOYED_PREFIX)
    if wanted in names:
        return wanted
    begins = sorted(name for name in names if wanted and name.startswith(wanted))
    if len(begins) == 1:
        return begins[0]
    listed = "\n".join(f"  {name}" for name in begins or sorted(names))
    what = f"several functions begin with '{typed}'" if begins else f"no function is called '{typed}'; there are"
    raise UnknownFunction(f"{what}:\n{listed}")
