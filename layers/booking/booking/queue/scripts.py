"""The line's Lua scripts. Each is sent as clock.lua, line.lua (what they share) and its own file, in this order."""

from functools import cache

from booking.platform.redis import Script
from booking.platform.resources import read_text

CLOCK = read_text("booking.queue", "lua/clock.lua")
SHARED = read_text("booking.queue", "lua/line.lua")


@cache
def script(name: str) -> Script:
    """The script ``lua/<name>.lua``; its head lists what it takes and answers."""
    return Script(CLOCK + SHARED + read_text("booking.queue", f"lua/{name}.lua"))
