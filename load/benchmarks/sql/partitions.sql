-- Seats of a data set of :schedules schedules in an order in which neighbours lie far apart: the n-th seat, for a buyer of its
-- own.
create sequence bench_seat;
create function bench_seat_at(n bigint)
returns table (concert_id bigint, schedule_id bigint, number integer, person text, pass_id text)
language sql immutable as $$
    select 1 + nth / 100, 100 * (1 + nth / 100) + 1 + nth % 100, (n / :schedules % 150 + 1)::integer, 'bench-' || n, 'bench-' || n
    from (select n * 7919 % :schedules) as schedule (nth)
$$;
