-- Note that a record could not be applied by a consumer. The attempt that reaches p_attempts_max sets it aside, in this
-- one transaction: it becomes a dead letter, and an outbox row sends it to the dead-letter topic as it stood, with what is
-- known of it in the headers. One that was tried again and fails again is set aside at once, its attempts counted on.
--
-- p_event_id: the event's, or one made of the position of a record that is no event.
-- p_record: {"topic", "partition", "offset", "type", "reservation_id", "correlation_id"}; type and reservation_id are null
-- where it could not be read.
-- Answers {"attempts", "set_aside"}; attempts is null where somebody has discarded it, or it was applied meanwhile.
create or replace function fail_event(
    p_consumer text,
    p_event_id uuid,
    p_error text,
    p_transient boolean,
    p_attempts_max integer,
    p_record jsonb,
    p_key bytea,
    p_value bytea,
    p_dead_letter_topic text
) returns json
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_attempts integer;
    v_letter dead_letter;
begin
    insert into inbox as i (consumer, event_id, attempts, last_error) values (p_consumer, p_event_id, 1, p_error)
    on conflict (consumer, event_id) do update set attempts = i.attempts + 1, last_error = excluded.last_error
        where i.done_at is null
    returning attempts into v_attempts;
    if v_attempts is null or v_attempts < p_attempts_max then
        return json_build_object('attempts', v_attempts, 'set_aside', v_attempts is null);
    end if;

    insert into dead_letter as d (consumer, event_id, state, topic, partition, "offset", record_key, record_value, type,
        reservation_id, correlation_id, error, transient, attempts, first_seen_at, last_seen_at)
    values (p_consumer, p_event_id, 'waiting', p_record ->> 'topic', (p_record ->> 'partition')::integer,
        (p_record ->> 'offset')::bigint, p_key, p_value, p_record ->> 'type', (p_record ->> 'reservation_id')::uuid,
        p_record ->> 'correlation_id', p_error, p_transient, v_attempts, v_now, v_now)
    on conflict (consumer, event_id) do update set state = 'waiting', error = excluded.error,
        transient = excluded.transient, attempts = excluded.attempts, last_seen_at = excluded.last_seen_at
    returning * into v_letter;
    insert into outbox (topic, type, reservation_id, occurred_at, correlation_id, data, raw, raw_key, raw_value)
    values (p_dead_letter_topic, coalesce(v_letter.type, 'unreadable'), p_event_id, v_now, v_letter.correlation_id,
        jsonb_build_object('dead_letter_id', v_letter.id, 'consumer', p_consumer, 'error', p_error,
            'transient', p_transient, 'attempts', v_attempts, 'origin_topic', v_letter.topic,
            'origin_partition', v_letter.partition, 'origin_offset', v_letter."offset"),
        true, p_key, p_value);
    return json_build_object('attempts', v_attempts, 'set_aside', true);
end $$;
