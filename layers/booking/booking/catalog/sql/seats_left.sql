-- The seats left of a concert's schedules alone: their ids and numbers as in schedules.sql, in the same order.
select
    coalesce(string_agg(id::text, ','), ''),
    coalesce(string_agg(coalesce(seats_total || ',' || seats_total - seats_sold, 'null,null'), ','), '')
from (
    select s.id, m.seats_total, m.seats_sold
    from schedule s left join schedule_sales m on m.schedule_id = s.id
    where s.concert_id = cast(:concert_id as bigint)
    order by s.starts_at, s.id
) ordered
