-- Forget idempotency keys whose 24 hours are over, some at a time so that no statement takes long. now(), which stays the
-- same throughout a statement, lets the index answer; clock_timestamp() would have every row looked at.
delete from idempotency
where ctid = any (array(
        select ctid from idempotency
        where created_at < now() - interval '24 hours'
        limit cast(:limit as integer)))
  and created_at < now() - interval '24 hours'
returning 1
