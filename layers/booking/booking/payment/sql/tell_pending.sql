-- See functions/tell_pending.sql.
select tell_pending(cast(:payment_id as uuid), :correlation_id)
