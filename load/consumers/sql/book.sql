-- Whole bookings of the next free seats, in one transaction: held, paid, settled; nobody asks a payment firm.
select count(settle_payment(
    (begin_payment(
        s.person, 'pay', 'hash', s.concert_id,
        (hold_seats(s.person, 'key', 'hash', s.concert_id, s.pass_id, s.schedule_id, array[s.number], 300, 900, 'bench')
            -> 'answer' ->> 'reservation_id')::uuid,
        'danal', 'card', 120) -> 'payment' ->> 'payment_id')::uuid,
    'danal', 'captured', null, 60, 'bench'))
from (select nextval('bench_seat') as n from generate_series(1, cast(:count as integer))) next, bench_seat_at(next.n) s
