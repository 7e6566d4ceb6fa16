"""Arguments that several verbs take."""

import argparse
from collections.abc import Callable


def concert_id(text: str) -> int:
    """A concert's id. Raises ArgumentTypeError."""
    if text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**63:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no concert's id")


def process_id(text: str) -> int:
    """A process's id. Raises ArgumentTypeError."""
    if text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**31:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no process's id")


def seconds_up_to(most: int) -> Callable[[str], int]:
    """A reader of whole seconds from 0 to ``most``, which raises ArgumentTypeError."""

    def seconds(text: str) -> int:
        if text.isascii() and text.isdigit() and int(text[:20]) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds from 0 to {most:,}")

    return seconds
