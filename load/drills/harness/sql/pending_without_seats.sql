-- How many payments are pending at this moment, and for how many of them the reservation does not hold all its seats.
select count(*), count(*) filter (where kept.seats < cardinality(r.seats))
from payment p
join reservation r on r.id = p.reservation_id
cross join lateral (
    select count(*) as seats from seat
    where schedule_id = r.schedule_id and number = any (r.seats)
      and reservation_id = r.id and state = 'held' and held_until > clock_timestamp()
) kept
where p.status = 'pending'
