-- One page of concerts in the order of their ids, from after :after, one row more than the page holds.
select c.id, c.title, c.artist, c.venue, rfc3339(c.sales_open_at), concert_status(c)
from concert c
where c.id > cast(:after as bigint)
order by c.id
limit cast(:limit as integer)
