"""What the verbs share by which people operate a concert's sale while it runs."""

import argparse
import getpass
import os
import socket

from booking.platform.settings import settings
from encore_stack.instance import Instance, function_environment


def operator_name() -> str:
    """Who is kept with a change as the one who made it."""
    return f"{getpass.getuser()}@{socket.gethostname()}"[:100]


def concert_id(text: str) -> int:
    """An option's type: the id of a concert."""
    if text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**63:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no concert's id")


def work_on_instance() -> None:
    """Let the booking layer in this process work on the running instance, as its functions do. Raises BadInstance."""
    os.environ.update(function_environment(Instance.load_existing()))
    settings.cache_clear()
