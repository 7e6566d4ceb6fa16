-- The schedules of a concert with seats left, built by Postgres: a hundred schedules as rows cost the handler four times
-- more. No row when there is no such concert. Columns:
--   the schedules' ids, in the order of the answer
--   the answer as JSON text with %s for each number that the sales read model has: it is true until the venue's midnight
--   for how many milliseconds that is
--   those numbers: seats in all, and not owned by a confirmed reservation, of each schedule
--   'cache' or 'database': where the operators want this to be read from
select
    coalesce(string_agg(s.id::text, ',' order by s.starts_at, s.id), ''),
    format('{"concert_id":%s,"schedules":[%s]}', c.id, coalesce(string_agg(format(
        '{"id":%s,"starts_at":"%s","seats_total":%%s,"seats_left":%%s}', s.id, rfc3339(s.starts_at)
    ), ',' order by s.starts_at, s.id) filter (where s.id is not null), '')),
    ceil(extract(epoch from midnight_after(statement_timestamp(), c.timezone) - statement_timestamp()) * 1000)::bigint,
    coalesce(string_agg(seats_left_of(m), ',' order by s.starts_at, s.id) filter (where s.id is not null), ''),
    coalesce((select r.source from reads_change r where r.concert_id = c.id order by r.id desc limit 1), 'cache')
from concert c
left join schedule s on s.concert_id = c.id
left join schedule_sales m on m.schedule_id = s.id
where c.id = cast(:concert_id as bigint)
group by c.id
