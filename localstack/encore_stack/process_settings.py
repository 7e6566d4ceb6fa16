"""The settings of this process, for tools that call the bundle's own code."""

import os

from booking.platform.settings import settings
from encore_stack.instance import Instance, function_environment

# What a function logs and measures goes to its output; a tool's output is for its reader, or JSON for a program.
_SILENT = {"POWERTOOLS_LOG_LEVEL": "CRITICAL", "POWERTOOLS_METRICS_DISABLED": "true"}


def adopt_settings(instance: Instance) -> None:
    """From now on this process and its children work with the servers and keys of the instance's functions.

    The bundle's code logs and measures nothing here.
    """
    os.environ.update(function_environment(instance) | _SILENT)
    settings.cache_clear()
