-- (concert, free seats) of the concerts on sale that have the most seats unsold. Free as step 6 sees it: a hold that has
-- lapsed is free. Only :concerts_max concerts are counted seat by seat: the full data set has 1,500,000 seats.
with open_concert as (
    select c.id
    from concert c
    join schedule_sales s on s.concert_id = c.id
    where concert_status(c) = 'on_sale'
    group by c.id
    order by sum(s.seats_total - s.seats_sold) desc, c.id
    limit cast(:concerts_max as integer)
)
select schedule.concert_id, count(*)
from open_concert
join schedule on schedule.concert_id = open_concert.id
join seat on seat.schedule_id = schedule.id
where seat.state = 'available' or (seat.state <> 'sold' and seat.held_until <= clock_timestamp())
group by schedule.concert_id
order by schedule.concert_id
