-- Take the payment of one reservation if its next check is due, as claim_unsettled does. A statement of its own: one plan for
-- both would look through all that are due, for everybody who looks at a pending reservation while a firm is away.
-- What is due for longer is left to the job while there is one, which asks for a few at a time: else everybody who waits
-- would ask a firm that has just come back at once, and it would be away again.
update payment p set
    checks = p.checks + 1,
    next_check_at = clock_timestamp() + check_backoff(p.checks, cast(:backoff_s_max as integer))
from (
    select id from payment
    where reservation_id = cast(:reservation_id as uuid)
      and status in ('pending', 'refunding') and next_check_at <= now()
      and (next_check_at > now() - interval '4 seconds' or not loop_has_leader(cast(:job as integer)))
      and (gateway = any (cast(:gateways as text[])) or (status = 'pending' and pending_at is null))
    for update skip locked
) due
where p.id = due.id
returning p.id::text, p.reservation_id::text, p.gateway, p.amount, p.currency, p.method, p.status,
          p.deadline_at <= clock_timestamp() as past_deadline, p.cancelling,
          p.pending_at is null as untold
