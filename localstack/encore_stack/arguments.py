"""Arguments that several verbs take."""

import argparse


def concert_id(text: str) -> int:
    """A concert's id. Raises ArgumentTypeError."""
    if text.isascii() and text.isdigit() and 0 < int(text[:20]) < 2**63:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no concert's id")
