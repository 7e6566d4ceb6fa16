-- What is on its way still: events not in Kafka, confirmed reservations of a concert without a ticket, and its seats that
-- are sold and not counted as such.
select (select count(*) from outbox where published_at is null),
       (select count(*) from reservation r
        where r.concert_id = :concert_id and r.status = 'confirmed'
            and not exists (select from ticket t where t.reservation_id = r.id)),
       (select coalesce(sum(cardinality(seats)), 0) from reservation
        where concert_id = :concert_id and status = 'confirmed')
       - (select coalesce(sum(seats_sold), 0) from schedule_sales where concert_id = :concert_id)
