-- Record that a pending payment is about to be cancelled at its gateway, before the gateway is asked: whoever learns of a
-- capture in the meantime must not confirm it, and it no longer turns to another gateway. Answers the gateway where it is now.
-- No row: there is nothing to cancel. It is settled, or :give_up is false (the person has not asked for it, its time is over)
-- and it has turned to another gateway meanwhile, with more time.
update payment set cancelling = true, give_up = give_up or cast(:give_up as boolean)
where id = cast(:payment_id as uuid) and status = 'pending'
  and (cast(:give_up as boolean) or deadline_at <= clock_timestamp())
returning gateway
