-- Have the settling job look at these payments now, if they are still open.
update payment set next_check_at = clock_timestamp()
where id = any (cast(:payment_ids as uuid[])) and status in ('pending', 'refunding')
returning id::text
