"""An HTML page that needs nothing else: its style is in it, nothing is fetched. And what such pages are made of."""

from collections.abc import Iterable, Sequence
from html import escape

from booking.platform.resources import read_text

_STYLE = read_text(__package__, "style.css")


def page(title: str, heading: str, parts: Iterable[str]) -> str:
    """The page; ``heading`` and ``parts`` are HTML already."""
    return "\n".join(
        (
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>\n{_STYLE}</style>\n</head>\n<body>",
            f"<h1>{heading}</h1>",
            *parts,
            "</body>\n</html>\n",
        )
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    lines = ["".join(f"<th>{cell}</th>" for cell in head)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    drawn = "<table>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"
    return f'<div class="wide">{drawn}</div>'


def mark(good: bool, yes: str, no: str) -> str:
    """One of two words, in the colour of good or bad."""
    return f'<span class="good">{yes}</span>' if good else f'<span class="bad">{no}</span>'
