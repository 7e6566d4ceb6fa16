-- Whether a person holds or owns seats of a concert.
select exists (
    select from reservation
    where person = :person and concert_id = :concert_id and status in ('held', 'paying', 'confirmed'))
