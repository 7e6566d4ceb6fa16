-- The seats left of a concert's schedules alone: their ids and numbers as in schedules.sql, in the same order.
select
    coalesce(string_agg(s.id::text, ',' order by s.starts_at, s.id), ''),
    coalesce(string_agg(seats_left_of(m), ',' order by s.starts_at, s.id), '')
from schedule s
left join schedule_sales m on m.schedule_id = s.id
where s.concert_id = cast(:concert_id as bigint)
