-- I9: no person holds or owns more seats of a concert than the limit; nor ever did, by the ledger.
with history as (
    select l.*, lead(l.at, 1, 'infinity') over (partition by schedule_id, number order by version) as next_at
    from seat_ledger l
), spans as (
    select r.person, r.concert_id, h.at as starts_at,
           least(h.next_at, case when h.state = 'held' then h.held_until else 'infinity' end) as ends_at
    from history h join reservation r on r.id = h.reservation_id
    where h.state in ('held', 'sold')
), steps as (
    select person, concert_id, starts_at as at, 1 as step from spans
    union all
    select person, concert_id, ends_at, -1 from spans where ends_at < 'infinity'
), counts as (
    -- At one moment, what ends comes before what begins: a hold that becomes a sale is one seat throughout.
    select person, concert_id, at, sum(step) over (partition by person, concert_id order by at, step) as seats from steps
)
select format('person %s', t.person),
       format('had %s seats of concert %s at %s; the limit is %s', max(t.seats), c.id, min(t.at), c.seats_per_person_max)
from counts t join concert c on c.id = t.concert_id
where t.seats > c.seats_per_person_max
group by t.person, c.id
