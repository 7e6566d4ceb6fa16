-- What people cannot see of their payments and tickets, at this moment: payments whose outcome is open, events that Kafka
-- has not got yet, and how long the oldest of them has waited (s; 0 when there is none).
select (select count(*) from payment where status = 'pending'),
       count(*),
       coalesce(extract(epoch from clock_timestamp() - min(occurred_at)), 0)
from outbox
where published_at is null
