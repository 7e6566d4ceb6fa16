-- Whether every seat of a concert is confirmed, by the sales read model; false where it knows of no seats.
create or replace function line_sold_out(p_concert_id bigint) returns boolean language sql stable as $$
    select coalesce(sum(seats_total) > 0 and sum(seats_sold) >= sum(seats_total), false)
    from schedule_sales where concert_id = p_concert_id
$$;
