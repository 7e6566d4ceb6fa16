-- Everything Postgres knows about a concert's line, as JSON text; null when there is no such concert.
--
-- Called when Redis has no gate. The line's first call appends the gate_change row of action 'started' and says
-- "first_start": nobody can be inside a line that never ran. Any later call means that Redis lost the line.
-- "settings" are line_settings(); "unrecorded_rate" is the fastest that people were let in during the last moments.
-- "turns" are [person, state, pass id, number, place, claimed, expires], oldest first; a turn whose end reached Postgres
-- before its admission did has no place, so its end stands for one (places come from a clock, and every paper of that
-- turn was given out earlier). Of earlier epochs only who may still be inside counts: their tokens are over anyway.
create or replace function open_line(p_concert_id bigint) returns text
language plpgsql as $$
declare
    v_gate gate_change;
    v_first_start boolean;
    v_rate numeric;
    v_turns json;
begin
    if not exists (select from concert where id = p_concert_id) then
        return null;
    end if;

    perform pg_advisory_xact_lock(hashtextextended('line ' || p_concert_id, 0));
    v_gate := gate_in_force(p_concert_id);
    v_first_start := not exists (select from gate_change where concert_id = p_concert_id and action = 'started');
    if v_first_start then
        insert into gate_change (concert_id, epoch, state, capacity, rate_per_s, paused, message, action, reason)
        values (p_concert_id, v_gate.epoch, v_gate.state, v_gate.capacity, v_gate.rate_per_s, v_gate.paused,
                v_gate.message, 'started', 'started')
        returning * into v_gate;
    end if;

    select max(rate_per_s) into v_rate from (
        select rate_per_s, lead(changed_at, 1, 'infinity') over (order by id) as until
        from gate_change where concert_id = p_concert_id) as settings
    where until > clock_timestamp() - interval '10 s';

    select coalesce(json_agg(json_build_array(
               person,
               case when ended_at is null then 'inside' else coalesce(end_reason, 'lapsed') end,
               pass_id,
               coalesce(number, 0),
               coalesce(place, microseconds(ended_at), 0),
               claimed_at is not null,
               coalesce(microseconds(expires_at), 0)
           ) order by coalesce(number, microseconds(ended_at))), '[]')
    into v_turns
    from (
        select * from admission where concert_id = p_concert_id and epoch = v_gate.epoch
        union all
        select * from admission where concert_id = p_concert_id and epoch is null
        union all
        select * from admission
        where concert_id = p_concert_id and epoch < v_gate.epoch
          and ended_at is null and expires_at > clock_timestamp() - interval '1 minute'
    ) as remembered;

    return json_build_object(
        'first_start', v_first_start,
        'unrecorded_rate', v_rate,
        'settings', line_settings(p_concert_id),
        'turns', v_turns);
end $$;
