-- Forget which events were applied long ago, some at a time; none that the topic could still bring again.
delete from inbox
where ctid = any (array(
        select ctid from inbox
        where done_at < now() - make_interval(secs => cast(:kept_s as integer))
        limit cast(:limit as integer)))
  and done_at < now() - make_interval(secs => cast(:kept_s as integer))
returning 1
