-- Take the payments of :gateways whose next check is due, at most :limit of them, skipping those that somebody else has just
-- taken. Those of whose open outcome the person does not know yet are taken at any firm: they are told, if no more.
-- Each is put off by the backoff at once, so that a job that dies leaves them to its successor.
-- now(), not clock_timestamp(): so the index answers.
update payment p set
    checks = p.checks + 1,
    next_check_at = clock_timestamp() + check_backoff(p.checks, cast(:backoff_s_max as integer))
from (
    select id from payment
    where status in ('pending', 'refunding') and next_check_at <= now()
      and (gateway = any (cast(:gateways as text[])) or (status = 'pending' and pending_at is null))
    order by next_check_at
    limit cast(:limit as integer)
    for update skip locked
) due
where p.id = due.id
returning p.id::text, p.reservation_id::text, p.gateway, p.amount, p.currency, p.method, p.status,
          p.deadline_at <= clock_timestamp() as past_deadline, p.cancelling,
          p.pending_at is null as untold
