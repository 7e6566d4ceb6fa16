-- A turn is over, as part of the transaction that ends it: its pass reserves nothing any more. The admission itself may
-- still be on its way from the line's stream; then this row waits for it (see copy_admissions.sql). A turn that ended
-- before keeps its first end.
create or replace function end_admission(
    p_pass_id text,
    p_concert_id bigint,
    p_person text,
    p_reason text,
    p_at timestamptz
) returns void
language plpgsql as $$
begin
    insert into admission (pass_id, concert_id, person, ended_at, end_reason)
    values (p_pass_id, p_concert_id, p_person, p_at, p_reason)
    on conflict (pass_id) do update set
        ended_at = coalesce(admission.ended_at, excluded.ended_at),
        end_reason = coalesce(admission.end_reason, excluded.end_reason);
end $$;
