-- One reservation as its owner sees it, as JSON text; no row for a stranger. A lapsed hold shows as expired before the
-- sweeper has come by, and a payment that failed late shows as what became of the seats.
select json_strip_nulls(json_build_object(
    'reservation_id', r.id,
    'status', case when r.status = 'held' and r.expires_at <= clock_timestamp() then 'expired' else r.status end,
    'concert_id', r.concert_id,
    'schedule_id', r.schedule_id,
    'seats', to_json(r.seats),
    'total', r.total,
    'currency', r.currency,
    'expires_at', case when r.status in ('held', 'paying') then rfc3339(r.expires_at) end,
    'payment', (
        select json_strip_nulls(payment_facts(p)) from payment p
        where p.reservation_id = r.id order by p.created_at desc limit 1),
    'ticket', (
        select json_build_object('ticket_id', t.id, 'code', t.code) from ticket t
        where t.reservation_id = r.id and t.revoked_at is null and r.status = 'confirmed'),
    'story', reservation_story(r)
))::text
from reservation r
where r.id = cast(:reservation_id as uuid) and r.person = :person
