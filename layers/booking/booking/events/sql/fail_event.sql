-- See functions/fail_event.sql.
select fail_event(
    :consumer, cast(:event_id as uuid), :error, cast(:transient as boolean), cast(:attempts_max as integer),
    cast(:record as jsonb), cast(:key as bytea), cast(:value as bytea), :dead_letter_topic
)::text
