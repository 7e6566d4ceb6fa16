-- What the benchmarks need beside Encore's own tables. Safe to run again.
create sequence if not exists bench_seat;
create sequence if not exists bench_payment;
create table if not exists bench_hold (n bigint primary key, reservation_id uuid not null);
create table if not exists bench_write (id bigint generated always as identity primary key, note text not null);

-- The n-th seat of the concerts that are sold here (15,000 seats a concert, 150 a schedule) and the buyer whom it is for.
create or replace function bench_seat_at(n bigint)
returns table (concert_id bigint, schedule_id bigint, number integer, person text, pass_id text)
language sql immutable as $$
    select c, c * 100 + 1 + (n - 1) % 15000 / 150, ((n - 1) % 150 + 1)::integer, 'bench-' || n, c || '-1-bench-' || n
    from (select 3 + (n - 1) / 15000) as concert (c)
$$;
