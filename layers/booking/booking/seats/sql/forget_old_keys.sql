-- Forget idempotency keys whose lifetime is over, some at a time so that no statement takes long. now(), which stays the
-- same throughout a statement, lets the index answer; clock_timestamp() would have every row looked at.
delete from idempotency
where ctid = any (array(
        select ctid from idempotency
        where created_at < now() - key_lifetime()
        limit cast(:limit as integer)))
  and created_at < now() - key_lifetime()
returning 1
