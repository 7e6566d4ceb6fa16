-- How long events of a time waited until Kafka had acknowledged them (s): the median and the worst of twenty (p95).
-- One that still waits counts as if it were acknowledged now. Null without events.
--
-- :since, :until  Unix times in seconds
select extract(epoch from percentile_disc(0.5) within group (order by coalesce(published_at, clock_timestamp()) - occurred_at)),
       extract(epoch from percentile_disc(0.95) within group (order by coalesce(published_at, clock_timestamp()) - occurred_at))
from outbox
where occurred_at between to_timestamp(cast(:since as double precision)) and to_timestamp(cast(:until as double precision))
