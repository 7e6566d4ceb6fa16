-- Seats in all and seats left of one schedule, by the sales read model, as step 4 shows them: two numbers, or null twice
-- for a schedule that has no counters.
create or replace function seats_left_of(p_sales schedule_sales) returns text
language sql immutable as $$
    select coalesce(p_sales.seats_total || ',' || (p_sales.seats_total - p_sales.seats_sold), 'null,null')
$$;
