"""The layers alone carry the functions: each is imported in an interpreter that sees nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from encore_stack.deployment.packages import build_runtime_layer
from encore_stack.instance import PROJECT_DIR
from support.functions import FUNCTIONS

# Design, section 7: what answers requests starts without these.
_HEAVY = ("boto3", "botocore", "sqlalchemy", "pydantic", "aws_xray_sdk", "aiokafka")
_IMPORT = """
import sys
sys.path[:0] = {path!r}
import app
print(" ".join(name for name in {heavy!r} if name in sys.modules))
"""


@pytest.fixture(scope="session")
def runtime_layer() -> Path:
    tools = PROJECT_DIR / ".stack" / "tools"
    return build_runtime_layer(PROJECT_DIR / "layers" / "runtime", tools, str(tools / "uv" / "bin" / "uv"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_imports_from_its_layers_alone_and_starts_light(function: str, runtime_layer: Path) -> None:
    path = [
        str(PROJECT_DIR / "functions" / function),
        str(runtime_layer / "python"),
        str(PROJECT_DIR / "layers" / "booking"),
    ]
    program = _IMPORT.format(path=path, heavy=_HEAVY)

    # -I -S: no environment, no user site, no site-packages.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    if function.startswith("step"):
        assert done.stdout.strip() == "", f"{function} imports {done.stdout}"


def test_every_functions_import_was_measured() -> None:
    rows = (PROJECT_DIR / "load" / "cold-start.md").read_text().splitlines()
    measured = [row.split()[1] for row in rows if row.startswith(("| step", "| on_", "| every_"))]

    assert measured == FUNCTIONS, "scripts/bench --cold-start --rounds 9 makes the table anew"
