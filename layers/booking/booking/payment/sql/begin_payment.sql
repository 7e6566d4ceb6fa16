-- The first of step 7's two trips; see functions/begin_payment.sql.
select begin_payment(
    :person, :key, :body_hash, cast(:concert_id as bigint), cast(:reservation_id as uuid), :gateway, :method,
    cast(:deadline_s as integer)
)::text
