-- Concerts on sale of which nobody has reserved anything, the last first.
select id from concert c
where line_mode = 'fifo' and sales_open_at < now() and not exists (select from reservation where concert_id = c.id)
order by id desc
limit :number
