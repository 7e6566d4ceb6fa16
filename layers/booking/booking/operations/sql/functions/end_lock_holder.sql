-- End the session of a transaction that lock_holders has shown, and record it: who it was, since when, what it held, how many
-- waited, who has ended it. Null when it is over by itself.
-- Answers the record with "is_new" (it was not there before) and "held_s"; its "fault" says why the session is still there:
-- only a superuser may end a superuser's. First the end, then the record: the sale waits for the one only.
create or replace function end_lock_holder(p_pid integer, p_started_at timestamptz, p_ended_by text) returns jsonb
language plpgsql as $$
declare
    v_holder record;
    v_found_at timestamptz := clock_timestamp();
    v_fault text;
    v_ended_at timestamptz;
    v_ended_by text := p_ended_by;
    v_record long_lock;
    v_is_new boolean;
begin
    select * into v_holder from lock_holders(0) h where h.pid = p_pid and h.started_at = p_started_at;
    if not found then
        return null;
    end if;
    begin
        if pg_terminate_backend(p_pid, 1000) then
            v_ended_at := clock_timestamp();
        else
            v_fault := 'it was told to end, and a second later it has not';
        end if;
    exception when insufficient_privilege then
        v_fault := sqlerrm;
        v_ended_by := null;
    end;
    v_is_new := not exists (select from long_lock where pid = p_pid and started_at = p_started_at);
    insert into long_lock (pid, started_at, found_at, role, application_name, client, state, query, holds, waiting,
                           ended_at, ended_by, fault)
    values (p_pid, p_started_at, v_found_at, v_holder.role, v_holder.application_name, v_holder.client,
            v_holder.state, v_holder.query, v_holder.holds, v_holder.waiting, v_ended_at, v_ended_by, v_fault)
    on conflict (pid, started_at) do update
        set waiting = greatest(long_lock.waiting, excluded.waiting), state = excluded.state, query = excluded.query,
            holds = excluded.holds, ended_at = excluded.ended_at, ended_by = excluded.ended_by, fault = excluded.fault
    returning * into v_record;
    return to_jsonb(v_record) || jsonb_build_object('is_new', v_is_new, 'held_s', round(v_holder.held_s::numeric, 1));
end $$;
