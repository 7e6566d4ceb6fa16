-- upcoming | on_sale | sold_out | closed, as the catalogue shows it. Sold out comes from the sales read model.
create or replace function concert_status(p_concert concert) returns text
language sql stable as $$
    select case
        when p_concert.sales_closed_at <= clock_timestamp() then 'closed'
        when p_concert.sales_open_at > clock_timestamp() then 'upcoming'
        when (select sum(seats_sold) >= sum(seats_total) from schedule_sales where concert_id = p_concert.id)
            then 'sold_out'
        else 'on_sale'
    end
$$;
