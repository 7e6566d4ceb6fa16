-- How many payments are pending, how many refunds are owed, and how long ago the oldest pending one was begun, in seconds: of
-- at most 10,000, those that are due first.
select count(*) filter (where status = 'pending'), count(*) filter (where status = 'refunding'),
       coalesce(extract(epoch from clock_timestamp() - min(created_at) filter (where status = 'pending')), 0)::float8
from (
    select status, created_at from payment where status in ('pending', 'refunding') order by next_check_at limit 10000
) unsettled
