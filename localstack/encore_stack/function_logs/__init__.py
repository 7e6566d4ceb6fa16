"""What the functions of an instance have logged, read for people: which files, what is in them, how it is shown."""

from encore_stack.function_logs.events import Event, events_of
from encore_stack.function_logs.reading import Follower, Wanted, newest
from encore_stack.function_logs.showing import Painter, as_json, as_text, wants_colour, without_unpacked
from encore_stack.function_logs.sources import Source, all_sources

__all__ = [
    "Event",
    "Follower",
    "Painter",
    "Source",
    "Wanted",
    "all_sources",
    "as_json",
    "as_text",
    "events_of",
    "newest",
    "wants_colour",
    "without_unpacked",
]
