"""These tests run on seats in one table and on seats in partitions."""

from booking.platform.postgres import primary, replica


def test_seats_are_in_partitions_where_redis_is_split(redis_topology: str) -> None:
    count = "select count(*) from pg_inherits where inhparent = 'seat'::regclass"

    assert primary().value(count) == replica().value(count) == (16 if redis_topology == "split" else 0)
