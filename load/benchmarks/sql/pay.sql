-- Step 7's two statements, for the next reservation that was held for it; nobody asks a payment firm.
select begin_payment(s.person, 'pay', 'hash', s.concert_id, h.reservation_id, 'danal', 'card', 120)
    -> 'payment' ->> 'payment_id' as payment_id
from (select nextval('bench_payment') as n offset 0) next
join bench_hold h using (n), bench_seat_at(h.n) s \gset
select settle_payment(cast(:payment_id as uuid), 'danal', 'captured', null, 60, 'bench')::text;
