-- Hold the seats first..last, one buyer each, and note the reservations for the payments to come.
with held as (
    insert into bench_hold (n, reservation_id)
    select n, (hold_seats(s.person, 'key', 'hash', s.concert_id, s.pass_id, s.schedule_id, array[s.number], 900, 900,
                          'bench') -> 'answer' ->> 'reservation_id')::uuid
    from generate_series(cast(:first as bigint), cast(:last as bigint)) as n, bench_seat_at(n) s
    returning n, reservation_id
)
select s.concert_id, s.person, s.pass_id, held.reservation_id::text from held, bench_seat_at(held.n) s
