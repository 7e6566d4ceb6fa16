-- The concerts of which the most seats are sold, the best first, by the sales read model.
select c.id, c.title, c.artist, c.venue, rfc3339(c.sales_open_at), concert_status(c), s.seats_sold
from (
    select concert_id, seats_sold from concert_sales
    where seats_sold > 0
    order by seats_sold desc, concert_id
    limit cast(:limit as integer)
) s join concert c on c.id = s.concert_id
order by s.seats_sold desc, s.concert_id
