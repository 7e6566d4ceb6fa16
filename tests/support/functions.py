"""The functions of the bundle, by the names of their folders."""

from encore_stack.instance import PROJECT_DIR

FUNCTIONS = sorted(path.parent.name for path in (PROJECT_DIR / "functions").glob("*/app.py"))
