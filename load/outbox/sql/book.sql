-- A whole booking: hold the next free seat, begin the payment, settle it; nobody asks a payment firm. Two events.
select s.concert_id, s.person,
       hold_seats(s.person, 'key', 'hash', s.concert_id, s.pass_id, s.schedule_id, array[s.number], 300, 900, 'bench')
           -> 'answer' ->> 'reservation_id' as reservation_id
from (select nextval('bench_seat') as n offset 0) next, bench_seat_at(next.n) s \gset
select begin_payment(:person, 'pay', 'hash', cast(:concert_id as bigint), cast(:reservation_id as uuid), 'danal', 'card', 120)
    -> 'payment' ->> 'payment_id' as payment_id \gset
select settle_payment(cast(:payment_id as uuid), 'danal', 'captured', null, 60, 'bench')::text;
