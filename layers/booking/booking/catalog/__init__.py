"""Concerts and their schedules: open, cacheable reads that may be a moment old, from the cache or the replica.

Import ``catalog.concerts`` or ``catalog.schedules`` by name: the schedules alone need the Redis client.
"""
