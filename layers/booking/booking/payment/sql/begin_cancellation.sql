-- Record that a pending payment is about to be cancelled at its gateway, before the gateway is asked: whoever learns of a
-- capture in the meantime must not confirm it. No row: the payment is no longer pending, nothing is to be cancelled.
update payment set cancelling = true, give_up = give_up or cast(:give_up as boolean)
where id = cast(:payment_id as uuid) and status = 'pending'
returning id::text
