-- I9: no person holds or owns more seats of a concert than the limit.
select format('person %s', r.person),
       format('has %s seats of concert %s; the limit is %s', sum(cardinality(r.seats)), c.id, c.seats_per_person_max)
from reservation r join concert c on c.id = r.concert_id
where r.status = 'confirmed' or (r.status in ('held', 'paying') and r.expires_at > clock_timestamp())
group by r.person, c.id
having sum(cardinality(r.seats)) > c.seats_per_person_max
