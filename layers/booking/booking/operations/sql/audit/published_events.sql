-- What the topic must have: the events of the window that are marked as published.
select event_id::text, reservation_id::text, seq
from outbox
where topic is null and published_at > now() - make_interval(secs => cast(:window_s as integer))
