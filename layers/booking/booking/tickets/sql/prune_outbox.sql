-- Forget events that were published long ago, some at a time so that no statement takes long. now(), which stays the same
-- throughout a statement, lets the index answer.
delete from outbox
where ctid = any (array(
        select ctid from outbox
        where published_at < now() - make_interval(secs => cast(:kept_s as integer))
        limit cast(:limit as integer)))
  and published_at < now() - make_interval(secs => cast(:kept_s as integer))
returning 1
