"""Who operates a sale with the verbs."""

import getpass
import socket

_LENGTH_MAX = 100


def operator_name() -> str:
    """What is kept with a change: who made it, and where."""
    return f"{getpass.getuser()}@{socket.gethostname()}"[:_LENGTH_MAX]
