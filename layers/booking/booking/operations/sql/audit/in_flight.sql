-- Work that has not come to its end yet, by kind; what the audit waits for when it is asked to settle.
select 'payments pending', count(*) from payment where status = 'pending'
union all
select 'refunds owed', count(*) from payment where status = 'refunding'
union all
select 'events unpublished', count(*) from outbox where published_at is null
union all
select 'events to consume', count(*)
from outbox e cross join unnest(cast(:consumers as text[])) consumer
where e.topic is null and e.published_at is not null and not exists (
    select from inbox i where i.consumer = consumer.consumer and i.event_id = e.event_id and i.done_at is not null)
  and not exists (select from dead_letter d where d.consumer = consumer.consumer and d.event_id = e.event_id)
union all
select 'tickets to issue', count(*) from reservation r
where r.status = 'confirmed' and not exists (select from ticket t where t.reservation_id = r.id)
  and not exists (select from dead_letter d where d.reservation_id = r.id and d.type = 'reservation.confirmed')
union all
-- A turn was paid for and its admission is still on its way from the line; after the grace it is taken for lost.
select 'turns to record', count(*) from admission
where number is null and ended_at > clock_timestamp() - make_interval(secs => cast(:grace_s as integer))
