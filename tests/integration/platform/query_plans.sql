-- Enough rows, with realistic statistics, that the planner has a choice: a sale that has been going on for a while.
-- 50 concerts, 2,000 schedules of which 100 have their 150 seats, 8,000 reservations of 4,000 people: three of four are
-- confirmed, most others are over; a few are held, paying, or held and lapsed.
set session_replication_role = replica;  -- what is written here needs no checking
set synchronous_commit = off;

insert into concert (id, title, artist, venue, sales_open_at, refund_until)
select n, 'Test', 'Test', 'Test', now() - interval '1 day', now() + interval '1 day' from generate_series(1, 50) n;

insert into schedule (id, concert_id, starts_at)
select n, 1 + n % 50, now() + interval '30 days' from generate_series(1, 2000) n;

insert into schedule_sales (schedule_id, concert_id, seats_total) select id, concert_id, 150 from schedule;

insert into concert_sales (concert_id, seats_sold) select n, n * 7 % 1000 from generate_series(1, 5000) n;

insert into seat (schedule_id, number, section, row_label, price)
select schedule_id, number, (array['R', 'S', 'A'])[1 + (number - 1) / 50], 1 + (number - 1) / 10 % 5, 100000
from generate_series(1, 100) schedule_id, generate_series(1, 150) number;

insert into gate_change (concert_id, epoch, state, capacity, rate_per_s, paused, action, reason)
select n % 50 + 1, 1, 'open', 1000, 200, false, case when n <= 50 then 'started' else 'rate' end, 'test'
from generate_series(1, 2000) n;

insert into reservation (id, concert_id, schedule_id, person, pass_id, seats, total, currency, status, created_at,
                         expires_at, hard_cap_at, closed_at, event_seq)
select md5('reservation' || n)::uuid, 1 + n % 100 % 50, 1 + n % 100, 'person ' || n % 4000, 'pass ' || n,
       array[101 + n % 25 * 2, 102 + n % 25 * 2], 200000, 'KRW', status, at, expires_at, expires_at + interval '10 minutes',
       case when status in ('expired', 'cancelled', 'refunded') then expires_at end, 2
from (
    select n, now() - interval '6 minutes' - n * interval '1 second' as at,
           case when n % 4 > 0 then 'confirmed' when n % 100 = 0 then 'paying' when n % 100 = 4 then 'held'
                when n % 8 = 0 then 'expired' else 'cancelled' end as status
    from generate_series(1, 8000) n
) made, lateral (
    select case when status = 'paying' or n % 200 = 104 then now() + interval '2 minutes' else at + interval '5 minutes' end
        as expires_at
) until;

insert into payment (id, reservation_id, gateway, amount, currency, method, status, detail, created_at, deadline_at,
                     next_check_at, settled_at)
select md5('payment' || row_number() over ())::uuid, id, 'danal', total, currency, 'card',
       case status when 'confirmed' then 'captured' when 'paying' then 'pending' else 'declined' end,
       case status when 'paying' then null else 'known' end, created_at, created_at + interval '2 minutes',
       case status when 'paying' then now() + random() * interval '1 minute' - interval '5 seconds' else created_at end,
       case status when 'paying' then null else created_at + interval '1 second' end
from reservation where status in ('confirmed', 'paying', 'cancelled');

insert into seat_ledger (schedule_id, number, version, event, state, held_until, reservation_id, at)
select schedule_id, number, row_number() over (partition by schedule_id, number order by created_at, id), 'held', 'held',
       expires_at, id, created_at
from reservation, unnest(seats) number;

insert into idempotency (person, route, key, body_hash, reservation_id, created_at)
select person, route, 'key ' || id, 'hash', id, created_at
from reservation, unnest(array['reserve', 'pay']) route;

insert into outbox (type, reservation_id, seq, occurred_at, correlation_id, data, published_at)
select 'reservation.held', id, seq, created_at, 'test', jsonb_build_object('reservation_id', id, 'person', person),
       case when random() > 0.001 then created_at + interval '1 second' end
from reservation, generate_series(1, 2) seq;

insert into inbox (consumer, event_id, attempts, done_at)
select consumer, event_id, 1, published_at from outbox, unnest(array['tickets', 'sales']) consumer;

insert into ticket (reservation_id, code, issued_at)
select id, 'code ' || id, created_at from reservation where status = 'confirmed';

insert into notice (event_id, reservation_id, person, kind, data, created_at, sent_at)
select event_id, reservation_id, 'person', type, data, occurred_at, published_at from outbox;

insert into admission (pass_id, concert_id, person, epoch, number, place, entered_after, admitted_at, claimed_at,
                       expires_at, ended_at, end_reason)
select pass_id, concert_id, person, 1, row_number() over (order by created_at, id), row_number() over (order by created_at, id),
       0, created_at, created_at, created_at + interval '10 minutes',
       case when status = 'confirmed' then created_at + interval '1 minute' end,
       case when status = 'confirmed' then 'paid' end
from reservation;
