-- The record of a dead letter: key and value, byte for byte.
select record_key, record_value from dead_letter where id = cast(:id as bigint)
