"""The settings of this process, for tools that call the bundle's own code."""

import os

from booking.platform.settings import settings
from encore_stack.instance import Instance, function_environment


def adopt_settings(instance: Instance) -> None:
    """From now on this process and its children work with the servers and keys of the instance's functions."""
    os.environ.update(function_environment(instance))
    settings.cache_clear()
