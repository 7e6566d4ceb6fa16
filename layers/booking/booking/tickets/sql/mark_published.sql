-- The broker has acknowledged these.
update outbox set published_at = clock_timestamp() where id = any (cast(:ids as bigint[])) and published_at is null
