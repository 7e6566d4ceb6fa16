"""What the outbox costs and what it is good for: the figures of ``load/outbox.md`` (``scripts/bench --outbox``)."""
