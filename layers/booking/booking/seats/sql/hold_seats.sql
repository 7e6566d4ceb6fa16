-- Step 6 in one round trip; see functions/hold_seats.sql.
select hold_seats(
    :person, :key, :body_hash, cast(:concert_id as bigint), :pass_id, cast(:schedule_id as bigint),
    cast(:numbers as integer[]), cast(:hold_ttl_s as integer), cast(:hold_cap_s as integer), :correlation_id,
    cast(:best as integer), :section, cast(:patient as boolean)
)::text
