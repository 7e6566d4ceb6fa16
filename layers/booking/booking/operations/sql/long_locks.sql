-- Who is to be ended: transactions that have held locks of the sale for too long, and that somebody waits for or that do nothing.
select coalesce(json_agg(json_build_object('pid', h.pid, 'started_at', h.started_at)), '[]')::text
from lock_holders(cast(:older_than_s as double precision)) h
where (h.waiting > 0 or h.state like 'idle in transaction%')
  and h.application_name <> all (cast(:left_alone as text[]))
