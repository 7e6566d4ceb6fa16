-- The schedules of a concert with seats left, by the sales read model: seats that no confirmed reservation owns. One
-- row with a null schedule when the concert has none, no row when there is no such concert.
select s.id, rfc3339(s.starts_at), m.seats_total, m.seats_total - m.seats_sold
from concert c
left join schedule s on s.concert_id = c.id
left join schedule_sales m on m.schedule_id = s.id
where c.id = cast(:concert_id as bigint)
order by s.starts_at, s.id
