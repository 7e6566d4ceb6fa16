"""Concerts and their schedules: open, cacheable reads that may be a moment old: from the cache or the replica."""

from booking.catalog.concerts import ConcertUnknown, find_concert, list_concerts
from booking.catalog.schedules import list_schedules

__all__ = ["ConcertUnknown", "find_concert", "list_concerts", "list_schedules"]
