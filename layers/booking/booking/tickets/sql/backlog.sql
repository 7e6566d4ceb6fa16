-- How many events wait for the relay, at most :limit are counted; how old the oldest of them is, in seconds; and how
-- many are set aside.
select count(*), coalesce(extract(epoch from clock_timestamp() - min(occurred_at)), 0)::float8,
       count(*) filter (where attempts > 0)
from (select occurred_at, attempts from outbox where published_at is null order by id limit cast(:limit as integer)) waiting
