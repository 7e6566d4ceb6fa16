-- See functions/redrive_dead_letters.sql.
select unnest(redrive_dead_letters(
    cast(:ids as bigint[]), cast(:limit as integer), cast(:backoff_s as double precision), cast(:redrives_max as integer)
))
