-- I1: a seat belongs to at most one live reservation, a live reservation has its seats, and a seat that is held is held
-- by a live reservation, for just as long.
with live as (
    select r.id, r.schedule_id, r.status, s.number
    from reservation r cross join unnest(r.seats) as s (number)
    where r.status = 'confirmed' or (r.status in ('held', 'paying') and r.expires_at > clock_timestamp())
)
select format('seat %s of schedule %s', number, schedule_id),
       format('has %s live reservations: %s', count(*), string_agg(id::text, ', ' order by id))
from live group by schedule_id, number having count(*) > 1
union all
select format('reservation %s', l.id),
       format('is %s, but seat %s of schedule %s is %s for %s', l.status, l.number, l.schedule_id,
              coalesce(s.state, 'unknown'), coalesce(s.reservation_id::text, 'nobody'))
from live l left join seat s on s.schedule_id = l.schedule_id and s.number = l.number
where s.reservation_id is distinct from l.id
union all
select format('seat %s of schedule %s', s.number, s.schedule_id),
       format('is held until %s by reservation %s, which is %s until %s', s.held_until, s.reservation_id,
              coalesce(r.status, 'unknown'), r.expires_at)
from seat s left join reservation r on r.id = s.reservation_id
where s.state = 'held' and s.held_until > clock_timestamp()
  and (r.status is null or r.status not in ('held', 'paying')
       -- Past the cap is I8's to tell.
       or (s.held_until <> r.expires_at and s.held_until <= r.hard_cap_at))
