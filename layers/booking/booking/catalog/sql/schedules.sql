-- The schedules of a concert with seats left, built by Postgres: a hundred schedules as rows cost the handler four times
-- more. No row when there is no such concert. Columns:
--   the schedules' ids, in the order of the answer
--   the answer as JSON text with %s for each number that the sales read model has: it is true until the venue's midnight
--   for how many milliseconds that is
--   those numbers: seats in all, and not owned by a confirmed reservation, of each schedule (null: it has no counters)
--   'cache' or 'database': where the operators want this to be read from
select listed.ids, format('{"concert_id":%s,"schedules":[%s]}', c.id, listed.schedules),
    ceil(extract(epoch from midnight_after(statement_timestamp(), c.timezone) - statement_timestamp()) * 1000)::bigint,
    listed.numbers,
    coalesce((select r.source from reads_change r where r.concert_id = c.id order by r.id desc limit 1), 'cache')
from concert c
cross join lateral (
    select
        coalesce(string_agg(id::text, ','), '') as ids,
        coalesce(string_agg(format('{"id":%s,"starts_at":"%s","seats_total":%%s,"seats_left":%%s}', id, rfc3339(starts_at)),
                            ','), '') as schedules,
        coalesce(string_agg(coalesce(seats_total || ',' || seats_total - seats_sold, 'null,null'), ','), '') as numbers
    from (
        select s.id, s.starts_at, m.seats_total, m.seats_sold
        from schedule s left join schedule_sales m on m.schedule_id = s.id
        where s.concert_id = c.id
        order by s.starts_at, s.id
    ) ordered
) listed
where c.id = cast(:concert_id as bigint)
