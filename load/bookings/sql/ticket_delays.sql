-- How long after its payment was settled each ticket of a concert was issued, in seconds.
select extract(epoch from t.issued_at - o.occurred_at)
from reservation r
join ticket t on t.reservation_id = r.id
join outbox o on o.reservation_id = r.id and o.type = 'reservation.confirmed'
where r.concert_id = :concert_id
order by 1
