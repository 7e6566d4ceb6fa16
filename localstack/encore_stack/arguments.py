"""Arguments that several verbs take."""

import argparse
from collections.abc import Callable

_DIGITS_MAX = 20


def whole_number(least: int, most: int, complaint: str) -> Callable[[str], int]:
    """A reader of whole numbers from ``least`` to ``most``. It raises ArgumentTypeError: the text and ``complaint``."""

    def read(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX
        if is_number and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"'{text}' {complaint}")

    return read


concert_id = whole_number(1, 2**63 - 1, "is no concert's id")
process_id = whole_number(1, 2**31 - 1, "is no process's id")


def seconds_up_to(most: int) -> Callable[[str], int]:
    """A reader of whole seconds from 0 to ``most``, which raises ArgumentTypeError."""
    return whole_number(0, most, f"is no number of seconds from 0 to {most:,}")
