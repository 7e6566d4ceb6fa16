-- I6: every committed event reaches Kafka and takes effect exactly once. Of the outbox's window (:window_s): what was
-- published before is pruned. What the broker has, the auditor reads from the topic itself.
with own as (
    select event_id, type, reservation_id, seq, occurred_at, published_at from outbox where topic is null
), waiting as (
    -- Which consumers an event has yet to act on.
    select e.*, consumer
    from own e cross join unnest(cast(:consumers as text[])) consumer
    where not exists (
        select from inbox i where i.consumer = consumer.consumer and i.event_id = e.event_id and i.done_at is not null)
), fresh as (
    select *, created_at > now() - make_interval(secs => cast(:window_s as integer)) as whole
    from reservation
    where greatest(created_at, closed_at) > now() - make_interval(secs => cast(:window_s as integer))
)
-- Committed, and not on its way.
select format('event %s', event_id), format('%s, number %s of reservation %s, was never published', type, seq, reservation_id)
from outbox
where published_at is null and occurred_at < now() - make_interval(secs => cast(:grace_s as integer))
union all
-- A reservation counts its events: none is missing. Of an older one, the last.
select format('reservation %s', r.id), format('has had %s events, the outbox has %s of them', r.event_seq, count(e.seq))
from fresh r left join own e on e.reservation_id = r.id and e.seq <= r.event_seq
group by r.id, r.event_seq, r.whole
having case when r.whole then count(e.seq) <> r.event_seq else max(e.seq) is distinct from r.event_seq end
union all
-- What has happened has an event that tells of it.
select format('reservation %s', r.id), format('is %s, and no event says so', r.status)
from fresh r
where r.whole and r.status in ('confirmed', 'refunded') and not exists (
    select from own e where e.reservation_id = r.id
        and (e.type = 'reservation.' || r.status or (r.status = 'refunded' and e.type = 'payment.refunding')))
union all
-- Published, and no consumer takes it.
select format('event %s', event_id),
       format('%s, number %s of reservation %s, was published and has not acted on %s', type, seq, reservation_id, consumer)
from waiting w
where published_at < now() - make_interval(secs => cast(:grace_s as integer))
  -- What was set aside is a person's to send back or to give up: scripts/dead-letters.
  and not exists (select from dead_letter d where d.consumer = w.consumer and d.event_id = w.event_id)
union all
-- One good ticket for a reservation that is confirmed, none for others, once their events have acted.
select format('reservation %s', r.id),
       format('is %s and has %s ticket', r.status, case when t.id is null then 'no' else 'a good' end)
from reservation r left join ticket t on t.reservation_id = r.id and t.revoked_at is null
where (r.status = 'confirmed') <> (t.id is not null)
  and not exists (select from waiting w where w.reservation_id = r.id and w.consumer = :ticket_consumer
                  and w.type in ('reservation.confirmed', 'reservation.refunded'))
union all
select format('reservation %s', t.reservation_id), 'has a ticket before its confirmation has acted'
from ticket t join waiting w on w.reservation_id = t.reservation_id
where w.consumer = :ticket_consumer and w.type = 'reservation.confirmed'
union all
-- A person is told of each event once; the table's key keeps a second time out.
select format('event %s', e.event_id), format('%s has acted, and the person was not told', e.type)
from own e
where is_notice(e.type)
  and not exists (select from notice n where n.event_id = e.event_id)
  and exists (select from inbox i where i.consumer = :ticket_consumer and i.event_id = e.event_id and i.done_at is not null)
union all
select format('event %s', n.event_id), format('the person was told of %s, which has not acted', n.kind)
from notice n join waiting w on w.event_id = n.event_id and w.consumer = :ticket_consumer
union all
-- The counters are the seats that are sold, but for the sales and refunds whose events have yet to act.
select format('schedule %s', s.schedule_id),
       format('counts %s seats sold; %s are, and events that have yet to act stand for %s of them',
              s.seats_sold, coalesce(sold.count, 0), coalesce(coming.count, 0))
from schedule_sales s
left join (select schedule_id, count(*) from seat where state = 'sold' group by schedule_id) sold using (schedule_id)
left join (
    select r.schedule_id, sum(case w.type when 'reservation.confirmed' then cardinality(r.seats)
                                          when 'reservation.refunded' then -cardinality(r.seats) end) as count
    from waiting w join reservation r on r.id = w.reservation_id
    where w.consumer = :sales_consumer and w.type in ('reservation.confirmed', 'reservation.refunded')
    group by r.schedule_id
) coming using (schedule_id)
where s.seats_sold <> coalesce(sold.count, 0) - coalesce(coming.count, 0)
