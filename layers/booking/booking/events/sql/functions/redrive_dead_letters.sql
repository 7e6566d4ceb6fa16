-- Send dead letters back to the topics that they came from, for the consumer that failed them: through the outbox, as they
-- stood. At most p_limit, the oldest first. p_ids: these; null: all that wait.
-- p_backoff_s: only what is transient and due: this long after it was set aside for the first time, then twice as long
-- each time; null: whatever waits. p_redrives_max: only what was sent back less often.
create or replace function redrive_dead_letters(
    p_ids bigint[],
    p_limit integer,
    p_backoff_s double precision default null,
    p_redrives_max integer default null
) returns bigint[]
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_ids bigint[];
begin
    with chosen as (
        select id from dead_letter
        where state = 'waiting' and (p_ids is null or id = any (p_ids))
            and (p_redrives_max is null or redrives < p_redrives_max)
            and (p_backoff_s is null
                or transient and last_seen_at + make_interval(secs => p_backoff_s * 2 ^ redrives) <= v_now)
        order by id
        limit p_limit
        for update skip locked
    ), sent as (
        update dead_letter d set state = 'redriven', redrives = redrives + 1, redriven_at = v_now
        from chosen where d.id = chosen.id
        returning d.*
    ), published as (
        insert into outbox (topic, type, reservation_id, occurred_at, correlation_id, data, raw, raw_key, raw_value)
        select topic, coalesce(type, 'unreadable'), event_id, v_now, correlation_id,
               jsonb_build_object('redriven_for', consumer, 'redriven_id', event_id), true, record_key, record_value
        from sent order by id
    )
    select coalesce(array_agg(id order by id), '{}') into v_ids from sent;
    return v_ids;
end $$;
