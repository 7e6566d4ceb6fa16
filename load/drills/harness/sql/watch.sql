-- What people cannot see of their payments and tickets, at this moment: payments whose outcome is open and that somebody
-- waits for (step 7 has said so, or must have been cut off: :answer_s), events that Kafka has not got yet, and how long the
-- oldest of them has waited (s; 0 when there is none).
select (select count(*) from payment
        where status = 'pending'
          and (pending_at is not null
               or created_at < clock_timestamp() - make_interval(secs => cast(:answer_s as double precision)))),
       count(*),
       coalesce(extract(epoch from clock_timestamp() - min(occurred_at)), 0)
from outbox
where published_at is null
