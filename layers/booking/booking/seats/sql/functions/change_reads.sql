-- Set where the hot reads of a concert come from: 'cache' or 'database'. Appends to reads_change.
-- Answers {"schedule_ids"}, whose readers must be told; null when there is no such concert.
create or replace function change_reads(p_concert_id bigint, p_source text, p_changed_by text, p_reason text) returns json
language plpgsql as $$
begin
    if not exists (select from concert where id = p_concert_id) then
        return null;
    end if;
    insert into reads_change (concert_id, source, reason, changed_by)
    values (p_concert_id, p_source, p_reason, p_changed_by);
    return json_build_object('schedule_ids', coalesce(
        (select json_agg(id order by id) from schedule where concert_id = p_concert_id), '[]'));
end $$;
