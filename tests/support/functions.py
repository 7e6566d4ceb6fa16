"""The functions of the bundle, by the names of their folders."""

from encore_stack.functions import function_names
from encore_stack.instance import PROJECT_DIR

FUNCTIONS = function_names(PROJECT_DIR)
