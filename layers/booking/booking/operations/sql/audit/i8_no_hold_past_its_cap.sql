-- I8: no seat was ever held past its reservation's hard cap, and no cap lies further off than the rule allows.
select format('seat %s of schedule %s', l.number, l.schedule_id),
       format('was held until %s by reservation %s, whose cap is %s', l.held_until, r.id, r.hard_cap_at)
from seat_ledger l join reservation r on r.id = l.reservation_id
where l.held_until > r.hard_cap_at
union all
select format('seat %s of schedule %s', s.number, s.schedule_id),
       format('is held until %s by reservation %s, whose cap is %s', s.held_until, r.id, r.hard_cap_at)
from seat s join reservation r on r.id = s.reservation_id
where s.held_until > r.hard_cap_at
union all
select format('reservation %s', id), format('may last until %s, made at %s', hard_cap_at, created_at)
from reservation
where hard_cap_at > created_at + make_interval(secs => cast(:hold_cap_s as integer))
