-- Kafka did not take these, while it took others: they are tried again after 1, 2, 4, 8, then each 15 seconds.
update outbox
set attempts = outbox.attempts + 1,
    next_try_at = clock_timestamp() + make_interval(secs => least(15, 2 ^ least(outbox.attempts, 10))),
    last_error = failed.error
from unnest(cast(:ids as bigint[]), cast(:errors as text[])) as failed (id, error)
where outbox.id = failed.id and published_at is null
