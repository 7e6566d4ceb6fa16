-- The oldest events that have not been published, in the order of their ids, which is the order of each reservation's
-- commits. Never "past an id": commits come out of order, and an id below the last one seen may appear later.
-- While an event is set aside, the later ones of its reservation wait for it.
select id, event_id::text, coalesce(topic, :topic) as topic, type, reservation_id::text, seq, rfc3339(occurred_at),
       correlation_id, data::text, raw, raw_key, raw_value
from outbox
where published_at is null
  and (coalesce(topic, ''), reservation_id) not in (
      select coalesce(topic, ''), reservation_id from outbox
      where published_at is null and next_try_at > now())
order by id
limit cast(:limit as integer)
