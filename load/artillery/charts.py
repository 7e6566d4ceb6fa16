"""Two kinds of chart as inline SVG: lines over time, and bars. Colours are classes that the page's style sheet sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 16, 40
_BAR_PX, _GAP_PX, _VALUE_PX = 14, 10, 80
_CHARACTER_PX = 7
_STEPS_MAX = 6


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or the bars of one colour. ``colour`` is a class of the page: c1, c2, … or bad."""

    name: str
    values: Sequence[float]
    colour: str


def line_chart(
    title: str, x_title: str, at: Sequence[float], series: Sequence[Series], marks: Sequence[tuple[float, str]] = ()
) -> str:
    """A figure with one line a series over ``at``; the y axis begins at zero. ``marks``: moments with their names."""
    ticks = _ticks(max((value for one in series for value in one.values), default=0))
    top = ticks[-1]
    right = max(at[-1], 1.0)

    def x(value: float) -> float:
        return _LEFT + value / right * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}">{_number(tick)}</text>')
    for tick in _ticks(right):
        if tick <= right:
            parts.append(f'<text class="middle" x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}">{_number(tick)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="middle" x="{middle:.0f}" y="{_HEIGHT - 6}">{escape(x_title)}</text>')
    for moment, name in marks:
        parts.append(
            f'<line class="mark" x1="{x(moment):.1f}" x2="{x(moment):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}">'
            f"{_tip(f'{name} at {moment:.1f} s')}</line>"
        )
        parts.append(f'<text x="{x(moment) + 4:.1f}" y="{_TOP + 8}">{escape(name)}</text>')
    for one in series:
        points = [(x(position), y(value)) for position, value in zip(at, one.values, strict=True)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline class="line {one.colour}" points="{path}"/>')
        for (px, py), position, value in zip(points, at, one.values, strict=True):
            tip = f"{one.name}: {_number(value)} at {position:.0f} s"
            parts.append(f'<circle class="dot {one.colour}" cx="{px:.1f}" cy="{py:.1f}" r="3">{_tip(tip)}</circle>')
    return _figure(title, series, _HEIGHT, parts)


def bar_chart(title: str, labels: Sequence[str], series: Sequence[Series]) -> str:
    """A figure with horizontal bars: for each label one bar a series, with its value written beside it."""
    top = max((value for one in series for value in one.values), default=0) or 1
    left = max((len(label) for label in labels), default=0) * _CHARACTER_PX + 16
    room = _WIDTH - left - _VALUE_PX
    group_px = _BAR_PX * len(series) + _GAP_PX
    parts = []
    for row, label in enumerate(labels):
        begins = row * group_px + _GAP_PX / 2
        middle = begins + _BAR_PX * len(series) / 2
        parts.append(f'<text class="end" x="{left - 8}" y="{middle + 4:.1f}">{escape(label)}</text>')
        for nth, one in enumerate(series):
            value = one.values[row]
            width, up = value / top * room, begins + nth * _BAR_PX
            bar = f'x="{left}" y="{up:.1f}" width="{max(width, 1):.1f}" height="{_BAR_PX - 2}"'
            parts.append(
                f'<rect class="bar {one.colour}" {bar}>{_tip(f"{label}, {one.name}: {_number(value)}")}</rect>'
            )
            parts.append(f'<text x="{left + width + 6:.1f}" y="{up + _BAR_PX - 4:.1f}">{_number(value)}</text>')
    return _figure(title, series, round(group_px * len(labels)), parts)


def _figure(title: str, series: Sequence[Series], height: int, parts: Sequence[str]) -> str:
    legend = "".join(f'<span><i class="{one.colour}"></i>{escape(one.name)}</span>' for one in series)
    legend = f'<div class="legend">{legend}</div>' if len(series) > 1 else ""
    drawing = "\n".join(parts)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>{legend}\n"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">\n{drawing}\n</svg></figure>'
    )


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>"


def _ticks(highest: float) -> list[float]:
    """Round numbers from zero to the first that is not below ``highest``, at most seven."""
    if highest <= 0:
        return [0, 1]
    power: float = 10.0 ** math.floor(math.log10(highest / _STEPS_MAX))
    size = next(step * power for step in (1, 2, 5, 10) if highest <= _STEPS_MAX * step * power)
    return [nth * size for nth in range(math.ceil(highest / size) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
