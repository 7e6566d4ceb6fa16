-- How many events each consumer has done since then, and for how many seconds it has been at it.
select consumer, count(*), extract(epoch from clock_timestamp() - min(done_at))::float8
from inbox
where done_at >= to_timestamp(cast(:since as float8))
group by consumer
