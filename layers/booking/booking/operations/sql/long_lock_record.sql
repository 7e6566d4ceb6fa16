-- The newest :limit records of long locks, newest first.
select coalesce(json_agg(l), '[]')::text
from (
    select *, round(extract(epoch from coalesce(ended_at, clock_timestamp()) - started_at), 1) as held_s
    from long_lock order by id desc limit cast(:limit as integer)
) l
