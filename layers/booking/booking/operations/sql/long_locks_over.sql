-- Note of each recorded transaction that nobody could end that it has ended since.
update long_lock set ended_at = clock_timestamp(), ended_by = coalesce(ended_by, 'itself')
where ended_at is null and not exists (
    select from pg_stat_activity a where a.pid = long_lock.pid and a.xact_start = long_lock.started_at)
