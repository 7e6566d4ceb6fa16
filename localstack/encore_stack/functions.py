"""The functions of the bundle by the names that people type."""

from collections.abc import Collection
from pathlib import Path

STACK_NAME = "encore"
"""The CloudFormation stack."""

DEPLOYED_PREFIX = f"{STACK_NAME}-"
"""What comes before a deployed function's name."""


class UnknownFunction(Exception):
    """No function is called so, or several are; the message lists those there are."""


def function_names(project_dir: Path) -> list[str]:
    """The names of the functions' folders, sorted."""
    return sorted(path.parent.name for path in (project_dir / "functions").glob("*/app.py"))


def find_name(typed: str, names: Collection[str]) -> str:
    """The name that is meant: in full, as deployed (``encore-step5_seats``), or by a part that only it has (``relay``).

    What begins with it counts first.

    Raises UnknownFunction.
    """
    wanted = typed.removeprefix(DEPLOYED_PREFIX)
    if wanted in names:
        return wanted
    alike = sorted(name for name in names if wanted and wanted in name)
    alike = [name for name in alike if name.startswith(wanted)] or alike
    if len(alike) == 1:
        return alike[0]
    listed = "\n".join(f"  {name}" for name in alike or sorted(names))
    what = f"several functions are called '{typed}'" if alike else f"no function is called '{typed}'; there are"
    raise UnknownFunction(f"{what}:\n{listed}")
