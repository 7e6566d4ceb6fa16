-- One concert.
select c.id, c.title, c.artist, c.venue, rfc3339(c.sales_open_at), concert_status(c)
from concert c
where c.id = cast(:concert_id as bigint)
