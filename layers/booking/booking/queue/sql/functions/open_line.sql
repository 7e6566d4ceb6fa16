-- Everything Postgres knows about a concert's line, as JSON text; null when there is no such concert.
--
-- Called when Redis has no gate. The line's first call appends a gate_change row of action 'started'; any later one
-- means that Redis has "lost" the line and appends one of action 'restored': one for each loss, while a line that is lost
-- again before its hold is over has let nobody in. "unrecorded_rate" is how fast people may have been let in during the last moments before,
-- unrecorded, summed over the losses whose people may still be inside; 0 where that cannot be, as the sale has not opened.
-- "settings" are line_settings().
-- "turns" are [person, state, pass id, number, place, claimed, expires], oldest first. The place of a turn that is over
-- is the latest that a paper of that turn can tell: of a drawn one (see place_on_paper in line.lua) a moment before the
-- opening; where the end reached Postgres before the admission did, the end's own time, as places come from a clock. Of
-- earlier epochs only who may still be inside counts: their tokens are over anyway.
create or replace function open_line(p_concert_id bigint, p_pass_life_s integer, p_hold_s integer) returns text
language plpgsql as $$
declare
    v_gate gate_change;
    v_drawn_below constant bigint := 1125899906842624;  -- 2 ^ 50, as in line.lua
    v_opens_us bigint;
    v_lost boolean;
    v_rate numeric;
    v_turns json;
begin
    select microseconds(sales_open_at) into v_opens_us from concert where id = p_concert_id;
    if not found then
        return null;
    end if;

    perform pg_advisory_xact_lock(hashtextextended('line ' || p_concert_id, 0));
    v_gate := gate_in_force(p_concert_id);
    v_lost := exists (select from gate_change where concert_id = p_concert_id and action = 'started');
    insert into gate_change (concert_id, epoch, state, capacity, rate_per_s, paused, message, action, reason)
    select p_concert_id, v_gate.epoch, v_gate.state, v_gate.capacity, v_gate.rate_per_s, v_gate.paused, v_gate.message,
           case when v_lost then 'restored' else 'started' end,
           case when v_lost then 'Redis had lost the line' else 'first visitor' end
    where not exists (
        select from gate_change
        where concert_id = p_concert_id and action = 'restored'
          and changed_at > clock_timestamp() - make_interval(secs => p_hold_s));

    select coalesce(sum(fastest), 0) into v_rate from (
        select max(setting.rate_per_s) as fastest
        from gate_change loss
        join (select rate_per_s, changed_at, lead(changed_at, 1, 'infinity') over (order by id) as until
              from gate_change where concert_id = p_concert_id) setting
          on setting.changed_at <= loss.changed_at and setting.until > loss.changed_at - interval '10 s'
        where loss.concert_id = p_concert_id and loss.action = 'restored'
          and loss.changed_at > clock_timestamp() - make_interval(secs => p_pass_life_s)
        group by loss.id) as losses;

    -- A few seconds more than clocks may differ.
    if v_opens_us > microseconds(clock_timestamp() + interval '5 s')
       and not exists (select from admission where concert_id = p_concert_id) then
        v_rate := 0;
    end if;

    select coalesce(json_agg(json_build_array(
               person,
               case when ended_at is null then 'inside' else coalesce(end_reason, 'lapsed') end,
               pass_id,
               coalesce(number, 0),
               case when ended_at is not null and place < v_drawn_below then v_opens_us - 1
                    else coalesce(place, microseconds(ended_at), 0) end,
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
        'lost', v_lost,
        'unrecorded_rate', v_rate,
        'settings', line_settings(p_concert_id),
        'turns', v_turns);
end $$;
