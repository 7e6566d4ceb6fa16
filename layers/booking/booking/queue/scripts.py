"""The line's Lua: one library of clock.lua, line.lua (what they share) and a function for each other file."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from booking.platform.redis import Function, Library
from booking.platform.resources import read_text

CLOCK = read_text("booking.queue", "lua/clock.lua")
SHARED = read_text("booking.queue", "lua/line.lua")
NAMES = (
    "join",
    "position",
    "leave",
    "end_turn",
    "set_gate",
    "show_gate",
    "set_sold_out",
    "restore_turns",
    "restore_gate",
)


def script(name: str) -> Function:
    """The function ``lua/<name>.lua``; its head lists what it takes and answers."""
    return functions()[name]


@cache
def functions() -> Mapping[str, Function]:
    """All of them, by name."""
    return library().functions()


def library(more: Mapping[str, str] = MappingProxyType({})) -> Library:
    """The library of the line, with ``more`` functions (name → body) that use what it shares."""
    bodies = {name: read_text("booking.queue", f"lua/{name}.lua") for name in NAMES}
    return Library("encore_line", CLOCK + SHARED, {**bodies, **more})
