-- Step 6's statement, for the next free seat.
select hold_seats(s.person, 'key', 'hash', s.concert_id, s.pass_id, s.schedule_id, array[s.number], 300, 900, 'bench')::text
from (select nextval('bench_seat') as n offset 0) next, bench_seat_at(next.n) s;
