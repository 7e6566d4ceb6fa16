-- See functions/discard_dead_letter.sql.
select discard_dead_letter(cast(:id as bigint), :reason, :discarded_by)
