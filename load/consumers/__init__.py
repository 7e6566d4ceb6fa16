"""What the consumers bear by the number of partitions: ``load/consumers.md`` (``scripts/bench --consumers``)."""
