-- The oldest events that have not been published, in the order of their ids, which is the order of each reservation's
-- commits. Never "past an id": commits come out of order, and an id below the last one seen may appear later.
select id, event_id::text, coalesce(topic, :topic) as topic, type, reservation_id::text, seq, rfc3339(occurred_at),
       correlation_id, data::text, raw, raw_key, raw_value
from outbox where published_at is null
order by id
limit cast(:limit as integer)
