"""Concerts and their schedules: open, cacheable reads that may be a moment old, answered by the replica."""

from booking.catalog.concerts import ConcertUnknown, find_concert, list_concerts
from booking.catalog.schedules import list_schedules

__all__ = ["ConcertUnknown", "find_concert", "list_concerts", "list_schedules"]
