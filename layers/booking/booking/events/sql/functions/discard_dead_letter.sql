-- Give a dead letter up, with the reason: its record counts as done for its consumer from now on, however often it comes.
-- Answers whether there was one to discard.
create or replace function discard_dead_letter(p_id bigint, p_reason text, p_discarded_by text) returns boolean
language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
    v_letter dead_letter;
begin
    update dead_letter set state = 'discarded', discarded_at = v_now, discarded_by = p_discarded_by,
        discard_reason = p_reason
    where id = p_id and state <> 'discarded' returning * into v_letter;
    update inbox set done_at = v_now
    where consumer = v_letter.consumer and event_id = v_letter.event_id and done_at is null;
    return v_letter.id is not null;
end $$;
