-- One concert, with how its line is ordered; the draw as JSON text, null without one.
select c.id, c.title, c.artist, c.venue, rfc3339(c.sales_open_at), concert_status(c), c.line_mode, draw_of(c)::text
from concert c
where c.id = cast(:concert_id as bigint)
