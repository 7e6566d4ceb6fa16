-- The schedules of a concert with seats left, by the sales read model (seats that no confirmed reservation owns), as one
-- JSON text built by Postgres: a hundred schedules as rows cost the handler four times more. No row when there is no
-- such concert.
select format(
    '{"concert_id":%s,"schedules":[%s]}', c.id, coalesce(string_agg(format(
        '{"id":%s,"starts_at":"%s","seats_total":%s,"seats_left":%s}',
        s.id, rfc3339(s.starts_at),
        coalesce(m.seats_total::text, 'null'), coalesce((m.seats_total - m.seats_sold)::text, 'null')
    ), ',' order by s.starts_at, s.id) filter (where s.id is not null), ''))
from concert c
left join schedule s on s.concert_id = c.id
left join schedule_sales m on m.schedule_id = s.id
where c.id = cast(:concert_id as bigint)
group by c.id
