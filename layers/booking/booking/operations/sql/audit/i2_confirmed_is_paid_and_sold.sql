-- I2: a confirmed reservation has exactly one captured payment of the same amount, and its seats are sold; nothing else
-- has a captured payment or sold seats. What it was sold for is what its seats cost.
select format('reservation %s', r.id),
       format('is confirmed for %s with %s captured payments of %s', r.total, count(p.id), coalesce(sum(p.amount), 0))
from reservation r left join payment p on p.reservation_id = r.id and p.status = 'captured'
where r.status = 'confirmed'
group by r.id
having count(p.id) <> 1 or sum(p.amount) <> r.total
union all
select format('reservation %s', r.id), format('is %s and has the captured payment %s', r.status, p.id)
from payment p join reservation r on r.id = p.reservation_id
where p.status = 'captured' and r.status <> 'confirmed'
union all
select format('seat %s of schedule %s', s.number, r.schedule_id),
       format('is %s, but reservation %s is confirmed', s.state, r.id)
from reservation r join seat s on s.schedule_id = r.schedule_id and s.number = any (r.seats)
where r.status = 'confirmed' and s.reservation_id = r.id and s.state <> 'sold'
union all
select format('seat %s of schedule %s', s.number, s.schedule_id),
       format('is sold to reservation %s, which is %s', s.reservation_id, coalesce(r.status, 'unknown'))
from seat s left join reservation r on r.id = s.reservation_id
where s.state = 'sold' and r.status is distinct from 'confirmed'
union all
select format('reservation %s', r.id), format('is for %s, but its seats cost %s', r.total, sum(s.price))
from reservation r join seat s on s.schedule_id = r.schedule_id and s.number = any (r.seats)
where r.status = 'confirmed'
group by r.id
having sum(s.price) <> r.total
